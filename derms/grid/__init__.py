"""The feeder model: power flow, estimation and golden results; the only room that knows OpenDSS."""
