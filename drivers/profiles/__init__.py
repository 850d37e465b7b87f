"""Devices as data: quirks of makes that speak SunSpec, and register maps of those that do not, a YAML file each."""
