"""Plans: aggregate the fleet, solve the horizon, disaggregate, verify, fall back; the only importer of cvxpy."""
