"""Faults that reach into the simulated world: timers that do not obey, local control, a reboot."""

import struct
from datetime import datetime

import pytest

from derms.domain.grid import FeederPackage
from hil.registers import BASE
from hil.server import DeviceServer, Fault
from hil.world import World

BATTERY = "bat01"
"""Of the 701 family."""


def setpoint(server: DeviceServer, p_w: float, reversion_s: int) -> int:
    """Write WSetEna to WSetRvrtTms of model 704 in one block; returns the exception code."""
    block = struct.pack(">HHiihhHI", 1, 1, int(p_w), 0, 0, 0, 0, reversion_s)
    return server.write(BASE + server.bank.place("704.WSetEna").register, block)


def moved(world: World, seconds: float) -> float:
    """The battery's power after a while [W]."""
    for _ in range(round(seconds / world.dt_s)):
        world.step()
    return float(world.state.p_w[[der.id for der in world.package.ders].index(BATTERY)])


@pytest.fixture
def world(package: FeederPackage, noon: datetime) -> World:
    return World(package, seed=1, start=noon)


def test_a_device_that_ignores_its_timer_goes_on_until_it_is_sound_again(world: World) -> None:
    server = world.servers[BATTERY]
    server.fail(Fault.IGNORE_REVERSION)
    assert setpoint(server, 15e3, 60) == 0
    assert moved(world, 300.0) == pytest.approx(15e3)
    server.mend()
    assert moved(world, 70.0) == 0.0


def test_a_device_that_is_deaf_to_a_refresh_reverts_in_spite_of_it(world: World) -> None:
    server = world.servers[BATTERY]
    server.fail(Fault.EARLY_REVERSION)
    assert setpoint(server, 15e3, 60) == 0
    assert moved(world, 40.0) == pytest.approx(15e3)
    assert setpoint(server, 15e3, 60) == 0
    assert moved(world, 30.0) == 0.0


def test_a_device_under_local_control_holds_the_value_and_does_not_follow(world: World) -> None:
    server = world.servers[BATTERY]
    server.fail(Fault.LOCAL_MODE)
    assert setpoint(server, 15e3, 600) == 0
    assert server.bank.get("704.WSet")[server.row] == 15e3
    assert moved(world, 60.0) == 0.0


def test_a_rebooted_device_has_forgotten_its_setpoint(world: World) -> None:
    server = world.servers[BATTERY]
    assert setpoint(server, 15e3, 600) == 0
    assert moved(world, 60.0) == pytest.approx(15e3)
    server.fail(Fault.REBOOT)
    assert server.bank.raw(server.row, "704.WSetEna") == 0
    assert moved(world, 60.0) == 0.0
