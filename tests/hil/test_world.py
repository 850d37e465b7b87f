"""The simulated world as a whole: days that repeat, devices for any client, commands that bite."""

import asyncio
import csv
import random
import tomllib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import sunspec2.modbus.client as sunspec2_client

from derms.domain.der import Device, DeviceKind, Fleet
from derms.domain.dispatch import Command, Quantity
from derms.domain.grid import FeederPackage
from derms.ports import DeviceDriver, FieldOptions
from derms.service.simulated import run_simulated
from drivers.registry import drivers
from hil.cli import write_files
from hil.files import FLEET_COLUMNS
from hil.server import Fault
from hil.world import CATCH_UP_STEPS, World

OPTIONS = FieldOptions(timeout_s=2.0, connect_timeout_s=2.0, read_only=False)
MODERN_PV, LEGACY_PV, MODERN_BATTERY, LEGACY_BATTERY = "pv01", "pv04", "bat01", "bat03"


@dataclass
class HandClock:
    """Time that moves when a test says so."""

    now_s: float = 0.0

    def monotonic_s(self) -> float:
        return self.now_s

    def utc(self) -> datetime:
        return datetime(2026, 4, 15, tzinfo=UTC) + timedelta(seconds=self.now_s)


def row_of(world: World, device: str) -> int:
    return [der.id for der in world.package.ders].index(device)


def steps(world: World, seconds: float) -> None:
    for _ in range(round(seconds / world.dt_s)):
        world.step()


def serving(world: World, scenario: Callable[[Fleet], Awaitable[None]]) -> None:
    async def run() -> None:
        ports = await world.serve()
        try:
            await scenario(world.fleet("127.0.0.1", ports))
        finally:
            world.close()

    asyncio.run(run())


async def connected(device: Device) -> DeviceDriver:
    driver = drivers().open([device], HandClock(), OPTIONS, random.Random(1))[device.id]
    await driver.connect()
    return driver


async def command(fleet: Fleet, device: str, quantity: Quantity, value_w: float | None, reversion_s: float) -> None:
    driver = await connected(fleet.devices[fleet.index[device]])
    await driver.write(Command(quantity, value_w, reversion_s))
    driver.disconnect()


def pysunspec2_values(device: Device) -> dict[str, float]:
    """Every number of the measuring models, as pysunspec2's own client reads and decodes them."""
    endpoint = device.endpoint
    client = sunspec2_client.SunSpecModbusClientDeviceTCP(
        slave_id=endpoint.unit, ipaddr=endpoint.host, ipport=endpoint.port, timeout=5.0
    )
    client.scan()
    values: dict[str, float] = {}
    for model_id in (701, 103, 203, 713):
        for model in client.models.get(model_id, []):
            assert model.error_info == ""
            for name, point in model.points.items():
                value = point.cvalue
                if isinstance(value, (int, float)) and name not in ("ID", "L"):
                    values[f"{model_id}.{name}"] = value
    client.close()
    return values


def shown(world: World, device: str, name: str) -> float:
    """What a register of a device holds."""
    server = world.servers[device]
    return float(server.bank.get(name)[server.row])


def test_pysunspec2_and_our_driver_read_every_device_alike(package: FeederPackage, noon: datetime) -> None:
    world = World(package, seed=1, start=noon)
    steps(world, 60)

    async def scenario(fleet: Fleet) -> None:
        for device in fleet.devices:
            theirs = await asyncio.to_thread(pysunspec2_values, device)
            assert len(theirs) > 5
            mine = [shown(world, device.id, name) for name in theirs]
            assert mine == pytest.approx(list(theirs.values()), rel=1e-12)
            driver = await connected(device)
            reading = await driver.read()
            ours = reading.layout.decode(np.frombuffer(reading.raw, dtype=np.uint8)[None, :])
            driver.disconnect()
            for column, names in {
                "p_w": ("701.W", "103.W", "203.W"),
                "q_var": ("701.Var", "103.VAr", "203.VAR"),
                "v_v": ("701.LNV", "103.PhVphA", "203.PhV"),
            }.items():
                expected = next((theirs[name] for name in names if name in theirs), np.nan)
                assert ours[column][0] == pytest.approx(expected, rel=1e-12, nan_ok=True)
            if device.kind is DeviceKind.BATTERY:
                assert ours["soc_frac"][0] == pytest.approx(0.5)
            else:
                assert np.isnan(ours["soc_frac"][0])

    serving(world, scenario)


def test_registers_tell_the_truth_within_the_noise(package: FeederPackage, noon: datetime) -> None:
    world = World(package, seed=1, start=noon)
    steps(world, 60)
    at = row_of(world, MODERN_PV)
    assert world.state.p_w[at] > 10e3
    assert shown(world, MODERN_PV, "701.W") == pytest.approx(world.state.p_w[at], rel=0.03)
    assert shown(world, MODERN_PV, "701.LNV") == pytest.approx(240.0 * world.solved.der_v_pu[at], rel=0.006)
    assert shown(world, "head", "203.W") == pytest.approx(world.solved.head_w.sum(), rel=0.02)
    head = [meter.id for meter in package.meters].index("head")
    assert shown(world, "head", "203.PhVphB") == pytest.approx(world.solved.meter_v_v[head, 1], rel=0.006)
    assert np.isnan(shown(world, "vs1", "203.W"))


def test_the_same_seed_gives_the_same_day_and_another_seed_another(package: FeederPackage, noon: datetime) -> None:
    one, same, other = (World(package, seed=seed, start=noon) for seed in (1, 1, 2))
    for world in (one, same, other):
        steps(world, 300)
    np.testing.assert_array_equal(one.truth.head_w, same.truth.head_w)
    for device in (MODERN_PV, LEGACY_BATTERY, "head"):
        assert bytes(one.servers[device].view) == bytes(same.servers[device].view)
    assert not np.isclose(one.truth.head_w, other.truth.head_w, rtol=1e-6).any()


def test_a_day_with_commands_sees_the_same_sky_and_customers(package: FeederPackage, noon: datetime) -> None:
    free, bare, moved = (World(package, seed=1, start=noon, publish=publish) for publish in (True, False, True))

    async def scenario(fleet: Fleet) -> None:
        await command(fleet, MODERN_BATTERY, Quantity.P_SET, 20e3, 3600)
        for world in (free, bare, moved):
            steps(world, 300)

    serving(moved, scenario)
    assert free.truth.head_w == bare.truth.head_w
    assert free.truth.pv_w == pytest.approx(moved.truth.pv_w, rel=1e-3)  # volt-var sees other voltages
    drop_w = np.array(free.truth.head_w[2:]) - np.array(moved.truth.head_w[2:])
    np.testing.assert_allclose(drop_w, 20e3, rtol=0.2)


@pytest.mark.parametrize("battery", [MODERN_BATTERY, LEGACY_BATTERY])
@pytest.mark.parametrize("p_w", [15e3, -15e3])
def test_a_battery_follows_its_setpoint_and_rests_when_nobody_refreshes_it(
    package: FeederPackage, noon: datetime, battery: str, p_w: float
) -> None:
    world = World(package, seed=1, start=noon)
    at = row_of(world, battery)

    async def scenario(fleet: Fleet) -> None:
        driver = await connected(fleet.devices[fleet.index[battery]])
        await driver.write(Command(Quantity.P_SET, p_w, 60))
        steps(world, 30)
        assert world.state.p_w[at] == pytest.approx(p_w, rel=1e-3)
        held = await driver.read_back(Quantity.P_SET)
        assert held.value_w == pytest.approx(p_w, rel=1e-3)
        left_s = np.nan if battery == LEGACY_BATTERY else 30.0  # older models do not tell
        assert held.reversion_left_s == pytest.approx(left_s, nan_ok=True)
        steps(world, 40)
        assert world.state.p_w[at] == 0.0
        assert (await driver.read_back(Quantity.P_SET)).value_w is None
        driver.disconnect()

    serving(world, scenario)


def test_refreshing_arms_the_timer_anew(package: FeederPackage, noon: datetime) -> None:
    world = World(package, seed=1, start=noon)
    at = row_of(world, MODERN_BATTERY)

    async def scenario(fleet: Fleet) -> None:
        for _ in range(3):
            await command(fleet, MODERN_BATTERY, Quantity.P_SET, 15e3, 60)
            steps(world, 50)
            assert world.state.p_w[at] == pytest.approx(15e3)

    serving(world, scenario)


@pytest.mark.parametrize("inverter", [MODERN_PV, LEGACY_PV])
def test_an_inverter_obeys_a_limit_until_released(package: FeederPackage, noon: datetime, inverter: str) -> None:
    world = World(package, seed=1, start=noon)
    at = row_of(world, inverter)
    steps(world, 30)
    free_w = world.state.p_w[at]

    async def scenario(fleet: Fleet) -> None:
        await command(fleet, inverter, Quantity.P_LIMIT, 10e3, 900)
        steps(world, 30)
        assert world.state.p_w[at] == pytest.approx(10e3, rel=1e-3)
        throttled = ("701.InvSt", 4) if inverter == MODERN_PV else ("103.St", 5)
        assert shown(world, inverter, throttled[0]) == throttled[1]
        await command(fleet, inverter, Quantity.P_LIMIT, None, 900)
        steps(world, 30)
        assert world.state.p_w[at] == pytest.approx(free_w, rel=0.2)

    serving(world, scenario)


def test_volt_var_runs_on_ten_inverters_and_nowhere_else(package: FeederPackage, noon: datetime) -> None:
    world = World(package, seed=1, start=noon)
    assert world.commands.volt_var.sum() == 10
    steps(world, 120)
    active = world.state.q_var != 0.0
    assert active.any()
    assert (active <= world.commands.volt_var).all()
    absorbing = world.solved.der_v_pu > 1.03
    assert (world.state.q_var[active & absorbing] < 0.0).all()


def test_inverters_sleep_at_night(package: FeederPackage, midnight: datetime) -> None:
    world = World(package, seed=1, start=midnight)
    steps(world, 10)
    assert (world.state.p_w == 0.0).all()
    assert shown(world, MODERN_PV, "701.InvSt") == 1  # SLEEPING
    assert shown(world, LEGACY_PV, "103.St") == 2


def test_the_tap_hears_what_the_driver_writes_and_catches_what_it_should_not(
    package: FeederPackage, noon: datetime
) -> None:
    world = World(package, seed=1, start=noon, soc_start_frac=0.1)

    async def scenario(fleet: Fleet) -> None:
        await command(fleet, MODERN_BATTERY, Quantity.P_SET, -10e3, 900)
        await command(fleet, LEGACY_BATTERY, Quantity.P_SET, -10e3, 900)
        assert world.tap.writes >= 3
        assert world.tap.violations == []
        await command(fleet, MODERN_BATTERY, Quantity.P_SET, 1e3, 60)
        await command(fleet, LEGACY_BATTERY, Quantity.P_SET, 1e3, 60)
        assert {(v.device, v.reason) for v in world.tap.violations} == {
            (MODERN_BATTERY, "discharge at the reserve"),
            (LEGACY_BATTERY, "discharge at the reserve"),
        }

    serving(world, scenario)


def test_a_frozen_device_shows_the_past_while_the_world_goes_on(package: FeederPackage, noon: datetime) -> None:
    world = World(package, seed=1, start=noon)
    steps(world, 30)
    server = world.servers[MODERN_PV]
    server.fault(Fault.FREEZE)
    seen = bytes(server.view)
    steps(world, 30)
    assert bytes(server.view) == seen
    asyncio.run(server.heal())
    assert bytes(server.view) != seen


def test_the_record_holds_what_the_judge_needs(package: FeederPackage, noon: datetime) -> None:
    world = World(package, seed=1, start=noon, publish=False)
    steps(world, 1800)
    truth = world.truth
    assert world.now == noon + timedelta(minutes=30)
    means_w = truth.head_mean_w()
    np.testing.assert_allclose(means_w, np.array(truth.head_w).reshape(2, 180).mean(axis=1))
    assert len(truth.violating_nodes) == len(truth.v_max_pu) == 30
    assert truth.voltage_violation_node_min == sum(truth.violating_nodes)
    assert truth.violating_nodes[-1] == world.violating().sum()


@dataclass
class LateClock:
    """A loop's time, and what was lost in a stall."""

    loop: asyncio.AbstractEventLoop
    lost_s: float = 0.0

    def monotonic_s(self) -> float:
        return self.loop.time() + self.lost_s

    def utc(self) -> datetime:
        return datetime(2026, 4, 15, tzinfo=UTC) + timedelta(seconds=self.monotonic_s())


def test_a_late_world_catches_up_in_fixed_steps_and_lets_go_of_what_is_too_much(
    package: FeederPackage, noon: datetime
) -> None:
    world = World(package, seed=1, start=noon)

    async def scenario(loop: asyncio.AbstractEventLoop) -> None:
        clock = LateClock(loop)
        running = asyncio.ensure_future(world.run(clock))
        await asyncio.sleep(20.5)
        assert world.truth.steps == 4
        clock.lost_s = 17.0
        await asyncio.sleep(5.0)
        assert world.truth.steps == 8
        clock.lost_s = 3600.0
        await asyncio.sleep(5.0)
        assert world.truth.steps == 8 + CATCH_UP_STEPS
        await asyncio.sleep(60.0)
        assert world.truth.steps == 8 + CATCH_UP_STEPS + 12
        running.cancel()

    run_simulated(scenario, seed=1)


def test_the_world_runs_unmodified_in_simulated_time(package: FeederPackage, noon: datetime) -> None:
    world = World(package, seed=1, start=noon)

    async def scenario(loop: asyncio.AbstractEventLoop) -> None:
        fleet = world.fleet("127.0.0.1", await world.serve())
        running = asyncio.ensure_future(world.run(LateClock(loop)))
        await command(fleet, MODERN_BATTERY, Quantity.P_SET, 15e3, 300)
        await asyncio.sleep(60.0)
        assert world.state.p_w[row_of(world, MODERN_BATTERY)] == pytest.approx(15e3)
        await asyncio.sleep(300.0)
        assert world.state.p_w[row_of(world, MODERN_BATTERY)] == 0.0
        running.cancel()
        world.close()

    run_simulated(scenario, seed=1)


def test_the_files_for_the_control_room_name_every_device(
    package: FeederPackage, noon: datetime, tmp_path: Path
) -> None:
    world = World(package, seed=1, start=noon)
    ports = list(range(15020, 15020 + len(world.servers)))
    site = tomllib.loads(write_files(world, "127.0.0.1", ports, tmp_path).read_text())
    assert site["site"]["mode"] == "observe"
    assert site["scada"]["net_load"] == "system"
    with (tmp_path / site["fleet"]["file"]).open(newline="") as file:
        table = csv.DictReader(file)
        assert tuple(table.fieldnames or ()) == FLEET_COLUMNS
        rows = {row["id"]: row for row in table}
    assert len(rows) == 65
    assert float(rows["bat01"]["energy_kwh"]) == pytest.approx(4 * float(rows["bat01"]["p_rated_kw"]))
    assert rows["pv01"]["energy_kwh"] == rows["head"]["p_rated_kw"] == ""
    assert {int(row["port"]) for row in rows.values()} == set(ports)
    with (tmp_path / site["scada"]["history"]).open(newline="") as file:
        history = list(csv.DictReader(file))
    assert len(history) == 7 * 96
    assert datetime.fromisoformat(history[-1]["time_utc"]) == noon
