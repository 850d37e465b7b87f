"""What devices may do until they are told something else: what they hold of ours, and what is on its way to them."""

import math

import numpy as np

from derms.control.connections import Reach, unheld
from derms.domain.der import Fleet
from derms.domain.dispatch import Quantity
from derms.domain.telemetry import TelemetrySnapshot
from derms.field.custody import Custody
from derms.field.ledger import Ledger


def reach_of(fleet: Fleet, snapshot: TelemetrySnapshot, custody: Custody, ledger: Ledger, lasts_s: float) -> Reach:
    """Between what powers devices behind connections may be [W]; all others as if they held nothing.

    A battery may be anywhere between rest and what it holds or is about to be told. PV counts with what limits it only
    where that was read back, is heeded, and lasts for `lasts_s` if nobody refreshes it: until others have had their
    turn. What was sent and not read back may be anything.
    """
    free = unheld(fleet, snapshot)
    low_w, high_w = free.low_w.copy(), free.high_w.copy()
    rows = np.flatnonzero((fleet.connection >= 0) & (fleet.is_battery | fleet.is_pv)).tolist()
    for row in rows:
        if fleet.is_pv[row]:
            ends_w = [_ceiling_w(row, quantity, custody, ledger, snapshot.now_s + lasts_s) for quantity in Quantity]
            high_w[row] = min(high_w[row], *ends_w)
            continue
        key = (row, Quantity.P_SET)
        values_w, seen = ledger.under_way_w(key), custody.holdings.get(key)
        held_w = None if seen is None else seen.held.value_w
        rated_w = float(fleet.p_rated_w[row])
        if held_w is not None:
            values_w.append(held_w)
        elif key in custody.held and not values_w:
            values_w += [-rated_w, rated_w]
        if held_w is None or key in ledger.unheeded:
            values_w += [float(free.low_w[row]), float(free.high_w[row])]
        low_w[row], high_w[row] = min(0.0, *values_w), max(0.0, *values_w)
    return Reach(low_w, high_w)


def _ceiling_w(row: int, quantity: Quantity, custody: Custody, ledger: Ledger, until_s: float) -> float:
    """What PV gives at most under what it holds of a quantity until then; inf where nothing is sure to."""
    key = (row, quantity)
    seen = custody.holdings.get(key)
    if seen is None or seen.held.value_w is None or key in ledger.unheeded:
        return math.inf
    if seen.armed_s + seen.reversion_s < until_s:
        return math.inf
    return max(0.0, seen.held.value_w, *ledger.under_way_w(key, released_w=math.inf))
