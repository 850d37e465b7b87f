"""The dispatcher's desk: what is asked of the fleet beside being flat, and what it could still do. W, + = injection."""

from dataclasses import dataclass

import numpy as np

from derms.domain.arrays import FloatArray


@dataclass(frozen=True, slots=True)
class DeskOrder:
    """What a dispatcher asks of a feeder's batteries until a time; without one they follow the schedule."""

    feeder: str
    power_w: float | None
    """To be held by all of them together [W, + = injection]; None: all that limits allow, an emergency."""
    author: str
    until_s: float

    def __str__(self) -> str:
        what = "emergency" if self.power_w is None else f"hold {self.power_w / 1e3:g} kW"
        return f"{what} on feeder {self.feeder}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """How many stores are expected to stay silent, and how sure a figure has to be."""

    silent_frac: float = 0.05
    confidence_frac: float = 0.95

    def sure_w(self, power_w: FloatArray) -> float:
        """Sum of these powers that is reached with the confidence, each store answering or not, shape (n,).

        With each of n stores silent by itself at probability q, their sum S of powers u falls short of its mean by more
        than t with probability at most 1 - c (Bernstein's inequality, for any n and any u):

            t = b L / 3 + sqrt((b L / 3)^2 + 2 q (1 - q) sum u^2 L)        b = (1 - q) max u,  L = ln(1 / (1 - c))

        Whatever silences many at once (a head-end that is lost) is not in it.
        """
        silent, most_w = self.silent_frac, float(power_w.max(initial=0.0))
        if silent <= 0.0:
            return float(power_w.sum())
        log = -float(np.log1p(-self.confidence_frac))
        step_w = (1.0 - silent) * most_w * log / 3.0
        spread = silent * (1.0 - silent) * float(power_w @ power_w)
        short_w = step_w + float(np.sqrt(step_w**2 + 2.0 * spread * log))
        return max((1.0 - silent) * float(power_w.sum()) - short_w, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Power that can be had up (more injection) and down (less), all >= 0."""

    up_w: float
    """If every store answers."""
    down_w: float
    up_sure_w: float
    """With the confidence asked for."""
    down_sure_w: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """Power that can be had from now on for a time."""

    lasting_h: float
    beside: Reach
    """Added to what the plan does."""
    instead: Reach
    """The whole power of the fleet, with the plan given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Headroom:
    """What the desk shows."""

    offers: tuple[Offer, ...]
    """One for each time, in the order asked for; none for a time beyond the horizon."""
    answers: Answers
    energy_up_wh: float
    """Energy reserve: what all stores could give from now at their terminals, plan or no plan."""
    energy_down_wh: float
    """The same of what they could take."""
