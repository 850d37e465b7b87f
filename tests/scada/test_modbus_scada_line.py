"""SCADA points from two units of one serial line, one of which is dead: the other goes on, in simulated time."""

import asyncio
import random

import pytest

from derms.domain.der import Endpoint, Transport
from derms.domain.scada import RegisterPlace
from derms.errors import DeviceUnreachable
from derms.ports import FieldOptions
from derms.service.simulated import SimulatedLoop, run_simulated
from drivers.modbus.session import Sessions
from drivers.scada import ModbusScada
from tests.drivers.oracles import Script, scripted_device
from tests.drivers.test_modbus_rtu import good_rtu_answer, rtu_answering

OPTIONS = FieldOptions(timeout_s=2.0, connect_timeout_s=2.0, read_only=True)
EVERY_S = 10.0
WHERES = ("1/holding/11/uint16", "2/holding/22/uint16")


def line(dead: set[int]) -> Script:
    """Units whose registers hold their own addresses; the dead ones say nothing."""
    return rtu_answering(lambda request: b"" if request[0] in dead else good_rtu_answer(request))


def source_on(port: int) -> ModbusScada:
    places = {where: place for where in WHERES if (place := RegisterPlace.parse(where))}
    sessions = Sessions(OPTIONS, random.Random(1))
    units = {
        number: sessions.unit(Endpoint("127.0.0.1", port, number, Transport.RTU_TCP))
        for number in sorted(place.unit for place in places.values())
    }
    return ModbusScada(units, places)


@pytest.mark.parametrize(("number", "left"), [(1, (WHERES[1], 22.0)), (2, (WHERES[0], 11.0))])
def test_a_dead_unit_of_a_line_costs_its_own_points_alone_at_every_fetch(number: int, left: tuple[str, float]) -> None:
    async def scenario(loop: SimulatedLoop) -> None:
        dead = {number}
        async with scripted_device(line(dead)) as port:
            link = source_on(port)
            for _ in range(6):
                begun_s = loop.time()
                assert [(sample.where, sample.value) for sample in await link.fetch()] == [left]
                assert loop.time() - begun_s < 2.0 * OPTIONS.timeout_s + 0.1
                await asyncio.sleep(EVERY_S)
            dead.clear()
            assert [sample.value for sample in await link.fetch()] == [11.0, 22.0]

    run_simulated(scenario, seed=1)


def test_when_all_units_of_a_line_are_dead_the_source_says_why() -> None:
    async def scenario(loop: SimulatedLoop) -> None:
        async with scripted_device(line({1, 2})) as port:
            with pytest.raises(DeviceUnreachable, match="no answer in 2 s"):
                await source_on(port).fetch()

    run_simulated(scenario, seed=1)
