"""How often setpoints change sign: what a battery, its contactors and its cycle count mind of a restless plan.

Powers in W, + = injection. A value near zero is rest: it neither has a sign nor ends one.
"""

from dataclasses import dataclass

import numpy as np

from derms.domain.arrays import BoolArray, FloatArray

REST_FRAC = 0.02
"""Power that counts as rest, per unit of what there is."""


@dataclass(frozen=True, slots=True)
class SignChanges:
    """Sign changes per hour of what was and what is planned."""

    fleet_per_h: float
    device_per_h: float
    """Of the device with the most of them."""


def sign_changes(power_w: FloatArray, rest_w: FloatArray | float) -> FloatArray:
    """How often power changes sign along the last axis.

    Parameters
    ----------
    power_w : FloatArray
        Powers in order of time [W], shape (..., steps); NaN, as of a device that is not commanded, is rest.
    rest_w : FloatArray or float
        Magnitude up to which a power is rest [W], shape (...,) or one for all.

    Returns
    -------
    FloatArray
        Changes, shape (...,): +, rest, - is one, and +, rest, + none.

    Examples
    --------
    >>> sign_changes(np.array([5.0, 0.1, 4.0, -3.0, 0.0, 6.0]), 1.0)
    array(2.)
    """
    steps = power_w.shape[-1]
    signed: BoolArray = np.abs(power_w) > np.asarray(rest_w)[..., np.newaxis]
    latest = np.maximum.accumulate(np.where(signed, np.arange(steps), 0), axis=-1)
    # Before its first sign a power takes that one, so that the beginning is no change.
    first = np.argmax(signed, axis=-1)[..., np.newaxis]
    sign = np.take_along_axis(np.sign(np.where(signed, power_w, 0.0)), np.maximum(latest, first), axis=-1)
    changes: FloatArray = (np.diff(sign, axis=-1) != 0.0).sum(axis=-1).astype(np.float64)
    return changes


def restlessness(
    fleet_w: FloatArray, fleet_hours: float, devices_w: FloatArray, device_hours: float, *, most_w: FloatArray
) -> SignChanges:
    """Sign changes per hour of the fleet and of its most restless device.

    Parameters
    ----------
    fleet_w : FloatArray
        Fleet power: of the plans before as it was to be, then of this plan [W], shape (steps,).
    fleet_hours : float
        Time that it covers [h].
    devices_w : FloatArray
        Setpoints of devices in the same manner [W], shape (n, points); NaN: not commanded.
    device_hours : float
        Time that they cover [h].
    most_w : FloatArray
        Power of each device [W], shape (n,): `REST_FRAC` of it, and of their sum for the fleet, is rest.
    """
    fleet = float(sign_changes(fleet_w, REST_FRAC * float(most_w.sum())))
    worst = float(sign_changes(devices_w, REST_FRAC * most_w).max(initial=0.0))
    return SignChanges(fleet / max(fleet_hours, 1e-9), worst / max(device_hours, 1e-9))
