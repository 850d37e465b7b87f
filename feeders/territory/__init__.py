"""A made-up territory of many feeders, in the manner of Los Angeles: the same spec and seed give the same bytes."""
