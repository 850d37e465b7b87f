"""Six devices on two feeders and one on none, for the tests of authority, tags, modes and stops."""

from datetime import UTC, datetime

from derms.domain.scope import Level, Places, Scope

DEVICES = ("bat0", "bat1", "pv0", "pv1", "bat2", "pv2")
PLACES = Places(DEVICES, ("f1", "f1", "f1", "f2", "f2", ""), {"vpp": frozenset({"bat0", "bat2", "sold"})})
"""`pv2` is reached by no source; the group names a device that is not there any more."""
AT = datetime(2026, 4, 15, 19, 0, tzinfo=UTC)

F1, F2 = Scope(Level.FEEDER, "f1"), Scope(Level.FEEDER, "f2")
VPP = Scope(Level.GROUP, "vpp")


def only(device: str) -> Scope:
    return Scope(Level.DEVICE, device)
