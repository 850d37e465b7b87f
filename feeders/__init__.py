"""Plug-ins towards the grid: one folder per feeder."""
