"""Control room for distributed energy resources: estimate, forecast, optimize, dispatch, verify."""

__version__ = "0.1.0"
