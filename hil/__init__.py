"""The simulated world: devices on Modbus/SunSpec, their physics, and the OpenDSS plant that they stand in."""
