"""The feeder model. `dss`, `compiled`, `linear`, `powers` and `opendss` know OpenDSS; all else works on `engine`."""
