"""SunSpec devices: model definitions, the codec of points, discovery and the driver."""
