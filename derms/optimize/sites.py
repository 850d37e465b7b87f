"""What a site leaves its devices: limits at its connection, a shared inverter, PV to charge from, energy for an outage.

Each is a common limit. Its room is shared in proportion to what the devices behind it can, so every one stays within
it whatever the others do, and a plan over devices needs to know nothing of sites. Units and signs as of the portfolio.
"""

from dataclasses import replace

import numpy as np
from scipy.sparse import csr_array

from derms.domain.arrays import FloatArray, IntArray
from derms.optimize.portfolio import Devices, Sites


def within_sites(devices: Devices, sites: Sites | None, steps: int) -> Devices:
    """The devices with what their sites leave them in each step; where a forecast is missing that is nothing.

    Energy kept for an outage is the least that a store may hold. A store whose backup nobody knows gives nothing.
    """
    if sites is None:
        return devices
    charge_w = np.repeat(devices.charge_max_w, steps // devices.charge_max_w.shape[1], axis=1)
    discharge_w = np.repeat(devices.discharge_max_w, steps // devices.discharge_max_w.shape[1], axis=1)
    discharge_w[np.isnan(sites.backup_wh)] = 0.0
    charge_w[sites.solar_only & (sites.site < 0)] = 0.0
    rating_w, pv_w = sites.inverter_max_w[:, None], sites.inverter_pv_w
    _share_room(charge_w, sites.inverter, rating_w + pv_w)
    _share_room(discharge_w, sites.inverter, rating_w - pv_w)
    _share_room(charge_w, np.where(sites.solar_only, sites.site, -1), sites.pv_w)
    net_w = sites.load_w - sites.pv_w
    _share_room(charge_w, sites.site, sites.import_max_w[:, None] - net_w)
    _share_room(discharge_w, sites.site, sites.export_max_w[:, None] + net_w)
    return replace(
        devices,
        charge_max_w=charge_w,
        discharge_max_w=discharge_w,
        stored_min_wh=np.fmax(devices.stored_min_wh, np.fmin(sites.backup_wh, devices.stored_max_wh)),
    )


def _share_room(most_w: FloatArray, point: IntArray, room_w: FloatArray) -> None:
    """Narrow what the devices behind each point can to the room there, in place; shapes (n, steps), (points, steps)."""
    behind = np.flatnonzero(point >= 0)
    if not len(behind):
        return
    place = point[behind]
    member = csr_array((np.ones(len(behind)), (place, np.arange(len(behind)))), shape=(len(room_w), len(behind)))
    able_w = member @ most_w[behind]
    left_w = np.maximum(np.nan_to_num(room_w, nan=0.0, posinf=np.inf), 0.0)
    part = np.ones_like(able_w)
    np.divide(left_w, able_w, out=part, where=able_w > left_w)
    most_w[behind] *= part[place]
