"""What the brain tells the gateway about itself, so that the gateway knows how far the service has come down."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BrainTold:
    """For how long each thing has been away when the brain says so [s]: 0 while it is there, infinite: never was."""

    forecast_s: float
    """Since a forecast passed its gates."""
    model_s: float
    """Since an estimate of the feeder could be believed."""
    optimizer_s: float
    """Since the optimizer made a plan that passed the verifier."""
    database_s: float
    """Since the database took something."""
    topology: str = ""
    """Why it is in doubt how the feeder is switched; empty when it is known."""
