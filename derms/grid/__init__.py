"""The feeder model: power flow, estimate, linearisation, look-ahead; only `compiled`, `opendss`, `linear` know OpenDSS."""
