"""Pure values of the house: what a device, a snapshot, a plan, a setpoint and an outcome are."""
