"""Plug-ins towards devices."""
