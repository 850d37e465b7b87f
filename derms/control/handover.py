"""What a dispatch has to be before the gateway takes it from a brain, whatever is in it: shape, times, numbers.

Values are for the guards; here is asked whether it can be a dispatch at all.
"""

import numpy as np

from derms.domain.dispatch import Dispatch, Leeway
from derms.domain.refusal import Reason

AHEAD_MAX_S = 3600.0
"""How far beyond a usual validity the end of a dispatch may be."""


def faults(dispatch: Dispatch, devices: int, now_s: float, validity_s: float) -> tuple[Reason, ...]:
    """Everything for which a dispatch is not taken by the gateway of a fleet; empty when it may be."""
    found: list[str] = []
    times_s, steps = dispatch.times_s, np.shape(dispatch.times_s)
    if len(steps) != 1 or steps[0] < 2 or not np.isfinite(times_s).all() or not (np.diff(times_s) > 0.0).all():
        found.append("its support points are not at least two finite times in order")
    for name, values in (("setpoints", dispatch.p_set_w), ("limits", dispatch.p_limit_w)):
        if np.shape(values) != (devices, *steps):
            found.append(f"its {name} are of shape {np.shape(values)}, and should be of {(devices, *steps)}")
        elif np.isinf(values).any():
            found.append(f"its {name} are not all finite")
    if dispatch.leeway is not None and not _fits(dispatch.leeway, devices, steps):
        found.append("what it expects does not fit its devices and times")
    offset_w = np.zeros(devices) if dispatch.trim is None else dispatch.trim.offset_w
    if np.shape(offset_w) != (devices,) or not np.isfinite(offset_w).all():
        found.append("its trim is not a finite value for each device")
    left_s = dispatch.valid_until_s - now_s
    if not 0.0 < left_s <= validity_s + AHEAD_MAX_S:
        found.append(f"it is valid for another {left_s:.0f} s, and should be for 0 to {validity_s:.0f} s")
    return tuple(Reason("dispatch", text) for text in found)


def _fits(leeway: Leeway, devices: int, steps: tuple[int, ...]) -> bool:
    """Whether expectations are of the shapes of a dispatch, and each device is on a head that is there or on none."""
    heads = leeway.heads
    if np.shape(leeway.net_load_w) != steps or np.shape(leeway.most_w) != (devices,):
        return False
    if not np.isfinite(leeway.net_load_w).all() or not np.isfinite(leeway.most_w).all():
        return False
    if heads is None:
        return True
    if np.ndim(heads.low_w) != 1 or np.shape(heads.high_w) != np.shape(heads.low_w):
        return False
    if np.shape(heads.feeder) != (devices,) or not (heads.low_w <= heads.high_w).all():
        return False
    return bool(((heads.feeder >= -1) & (heads.feeder < len(heads.low_w))).all())
