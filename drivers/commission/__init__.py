"""Commissioning: what a device is, whether it keeps to SunSpec, and whether it lets go by itself."""
