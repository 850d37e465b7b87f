"""Decisions as bytes: a plan with all that it was made from, kept so exactly that it can be made again."""

from collections.abc import Mapping

from derms.domain.packing import Packer

_TYPES: Mapping[str, tuple[str, ...]] = {
    "derms.control.signs": ("SignChanges",),
    "derms.domain.connection": ("Connection",),
    "derms.domain.der": ("ChargeFrom", "Device", "DeviceKind", "Endpoint", "Fleet", "Link", "Transport"),
    "derms.domain.dispatch": ("Dispatch", "Heads", "Leeway", "Trim"),
    "derms.domain.forecast": ("Forecast",),
    "derms.domain.grid": ("GridState", "StateSummary", "SwitchState", "Topology"),
    "derms.domain.plan": ("Plan", "PlanSource"),
    "derms.domain.quality": ("Quality",),
    "derms.domain.settings": ("PlanWeights",),
    "derms.domain.telemetry": ("TelemetrySnapshot",),
    "derms.optimize.fleet": ("FleetPlan", "PlannerState"),
    "derms.optimize.horizon": ("FleetShape",),
    "derms.optimize.master": ("Binding", "Built", "Slack", "Solution"),
    "derms.optimize.portfolio": ("Days", "Desk", "Devices", "Envelopes", "Feeders", "Portfolio", "Rows", "Sites"),
    "derms.optimize.share": ("Fairness", "Shares"),
    "derms.optimize.zones": ("Zoning",),
}
"""All that is stored with decisions and forecasts; the modules are loaded when a record holds something of them."""

_PACKER = Packer(_TYPES)
pack, unpack = _PACKER.pack, _PACKER.unpack
