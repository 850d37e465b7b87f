"""Curves that are written, then adopted: models 705, 706, 711 and 712, where curve 1 is the active one.

Source: SunSpec DER Information Model Specification 1.0 (curve management): the request is answered by a result, in
progress, completed or failed, and curve 1, which is read-only, becomes a copy of the curve that was adopted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from drivers.sunspec.models import Value

IN_PROGRESS, COMPLETED, FAILED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Family:
    """The names that one curve model uses."""

    group: str
    request: str
    result: str
    count: str
    reverted: str
    """Names the curve that is adopted when the reversion time is over."""
    axis: str | None = None
    """The point that has to grow along a curve; None for droops, which are no lists of points."""

    def curve(self, number: int) -> str:
        """Prefix of the points of a curve, counted from 1."""
        return f"{self.group}[{number - 1}]."


FAMILIES: Mapping[int, Family] = {
    705: Family("Crv", "AdptCrvReq", "AdptCrvRslt", "NCrv", "RvrtCrv", axis="V"),
    706: Family("Crv", "AdptCrvReq", "AdptCrvRslt", "NCrv", "RvrtCrv", axis="V"),
    711: Family("Ctl", "AdptCtlReq", "AdptCtlRslt", "NCtl", "RvrtCtl"),
    712: Family("Crv", "AdptCrvReq", "AdptCrvRslt", "NCrv", "RvrtCrv", axis="W"),
}


def is_valid(family: Family, curve: Mapping[str, Value | None], points: int) -> bool:
    """Whether a curve can be adopted: `curve` by name within the curve, unscaled, for at most so many points."""
    if family.axis is None:
        return all(value is not None for name, value in curve.items() if name != "ReadOnly")
    active = curve["ActPt"]
    if not isinstance(active, int) or not 2 <= active <= points:
        return False
    used = {name: value for name, value in curve.items() if name.startswith(tuple(f"Pt[{i}]." for i in range(active)))}
    along = [used[f"Pt[{i}].{family.axis}"] for i in range(active)]
    if any(value is None for value in used.values()):
        return False
    numbers = [float(value) for value in along if value is not None]
    return all(first <= second for first, second in pairwise(numbers))
