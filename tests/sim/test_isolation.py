"""I-24: a fault of one device changes no command of another, other than through the plan and their connection."""

import pytest

from hil.fault_kinds import Fault
from tests.sim.schedule import Mishap
from tests.sim.sweep import commands_of

FAULTY, OTHERS = "pv03", ("pv01", "bat01", "bat02")
"""The faulty one has a connection of its own."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Fault.HANG, Fault.GARBAGE, Fault.STOP, Fault.DELAY, Fault.REBOOT])
def test_a_fault_of_one_device_leaves_the_commands_of_others_as_they_are(kind: Fault) -> None:
    value = 5.0 if kind is Fault.DELAY else 0.0
    without, with_it = commands_of(None), commands_of(Mishap(5.0, 150.0, kind, FAULTY, value))
    assert any(without[device] for device in OTHERS)
    for device in OTHERS:
        assert with_it[device] == without[device]
