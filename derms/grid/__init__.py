"""The feeder model. Only `compiled`, `linear` and `opendss` know OpenDSS; all else works on `engine`."""
