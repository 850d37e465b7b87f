"""What people are told of a stop: what it will do, and how far it has come. It always says that it is no isolation.

Powers in W, + = injection, net load + = import; times in s on the monotonic clock; columns of shape (n,).
"""

from dataclasses import dataclass

import numpy as np

from derms.control.stopping import NOTHING, WAYS, How, Stoppable, Tally, after_w, change_w, stages
from derms.domain.arrays import BoolArray, FloatArray
from derms.domain.scope import Places, Scope

NOT_ISOLATION = "A stop by software is not isolation: nobody may work on a line because of it."


@dataclass(frozen=True, slots=True)
class Preview:
    """What a stop will do, to be shown before it is given."""

    how: How
    scope: Scope
    devices: int
    net_load_w: float
    """Net load of the system now [W], + = import."""
    after_w: float
    unknown: int
    """Devices of which nobody knows what they will change: not in `after_w`."""
    unknown_w: float
    """How far those could move it."""
    stages: int
    takes_s: float

    def __str__(self) -> str:
        stopped = f"{self.how}, {self.scope}: {WAYS[self.how].text}; {self.devices} devices"
        load = f"net load {self.net_load_w / 1e3:,.0f} kW now, {self.after_w / 1e3:,.0f} kW after it"
        if np.isnan(self.net_load_w):
            load = "net load not known"
        doubt = f" (give or take {self.unknown_w / 1e3:,.0f} kW of {self.unknown} unknown)" if self.unknown else ""
        return f"{stopped}; {load}{doubt}; {self.stages} stages in {self.takes_s:.0f} s. {NOT_ISOLATION}"


def preview(
    how: How,
    scope: Scope,
    devices: Stoppable,
    places: Places,
    *,
    net_load_w: float,
    stage_w: float,
    every_s: float,
    among: BoolArray | bool = True,
) -> Preview:
    """What a stop of a scope, of those `among` the devices that it does not spare, will do and in which stages."""
    stage = stages(how, devices, places.under(scope) & among, stage_w=stage_w)
    rows = stage != NOTHING
    moved_w = (after_w(how, devices) - devices.p_w)[rows]
    blind = np.isnan(moved_w)
    count = int(stage.max(initial=NOTHING)) + 1
    return Preview(
        how=how,
        scope=scope,
        devices=int(rows.sum()),
        net_load_w=net_load_w,
        after_w=net_load_w - float(moved_w[~blind].sum()),
        unknown=int(blind.sum()),
        unknown_w=float(change_w(how, devices)[rows][blind].sum()),
        stages=count,
        takes_s=max(0, count - 1) * every_s,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One stop, and how far it has come; times in s on the gateway's monotonic clock."""

    number: int
    how: How
    scope: Scope
    author: str
    given_s: float
    immediate: bool
    latched: bool
    """False once two people have released it."""
    approved_by: str
    """The first of the two who release it; empty before."""
    tally: Tally
    why: tuple[str, ...] = ()
    """What is known of each unknown device."""
    kept_out: int = 0
    """Devices from which service is withdrawn still, of those that are released."""
    devices: tuple[str, ...] = ()
    """Every device that is to be stopped; left out unless asked for, as the next is."""
    confirmed_s: FloatArray | None = None
    """When each of these was confirmed; NaN for one that is not."""

    def __str__(self) -> str:
        what = f"stop {self.number} ({self.how}, {self.scope}) of {self.author}"
        if not self.latched:
            return f"{what}, released: {self.kept_out} to be let in"
        approved = f", release approved by {self.approved_by}" if self.approved_by else ""
        return f"{what}, latched{approved}: {self.tally}"
