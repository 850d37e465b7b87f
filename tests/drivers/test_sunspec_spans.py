"""Holes in a device's map: found once by halving, left out from then on, and never decoded as values."""

import asyncio
import math
from collections.abc import Collection
from unittest.mock import ANY

import numpy as np
import pytest

from derms.domain.der import Device, DeviceKind, Endpoint
from derms.errors import DeviceRefused
from derms.service.clock import SystemClock
from drivers.modbus.unit import Priority, Span, Table
from drivers.sunspec.driver import SunSpecDriver
from drivers.sunspec.models import model_layout
from drivers.sunspec.scan import Chain, Place
from drivers.sunspec.spans import around, readable
from drivers.sunspec.telemetry import SunSpecLayout, read_plan
from tests.bench.stage import BASE, image
from tests.drivers.spanwise import Spanwise

SPANS = (Span(40070, 123), Span(40225, 67))


class Holed(Spanwise):
    """A unit with the map of a simulated inverter, some registers of which it refuses."""

    name = "holed"
    connected = True

    def __init__(self, holes: Collection[int], code: int = 2) -> None:
        self.asked = 0
        self._holes = frozenset(holes)
        self._code = code
        self._image = image(0)

    async def read(
        self, address: int, count: int, *, table: Table = Table.HOLDING, priority: Priority = Priority.READ
    ) -> bytes:
        self.asked += 1
        if self._holes & set(range(address, address + count)):
            raise DeviceRefused("illegal", self._code)
        return self._image[2 * (address - BASE) : 2 * (address - BASE + count)]

    async def write(self, address: int, data: bytes, *, priority: Priority = Priority.WRITE) -> None:
        raise NotImplementedError

    async def connect(self) -> None:
        """It always is."""

    def disconnect(self) -> None:
        """It never is."""


def plan() -> SunSpecLayout:
    layout, spans = read_plan(Chain((Place(1, 40002, 68), Place(701, 40070, 155), Place(704, 40225, 67))))
    assert spans == SPANS
    return layout


async def poll(unit: Holed) -> tuple[dict[str, float], tuple[Span, ...]]:
    """What is decoded of the map around its holes, by column, and the requests that it takes."""
    found = {span: await readable(unit, span) for span in SPANS}
    layout, spans = around(plan(), SPANS, found)
    raw = b"".join([await unit.read(span.address, span.count) for span in spans])
    assert len(raw) == layout.width
    columns = layout.decode(np.frombuffer(raw, np.uint8).reshape(1, -1))
    return {name: float(column.ravel()[0]) for name, column in columns.items()}, spans


@pytest.mark.parametrize("holes", [{40070}, {40192}, {40100}, {40100, 40101, 40130}, set(range(40090, 40110))])
def test_what_is_left_of_a_span_is_everything_but_its_holes(holes: set[int]) -> None:
    unit = Holed(holes)
    left = asyncio.run(readable(unit, SPANS[0]))
    read = [address for span in left for address in range(span.address, span.address + span.count)]
    assert read == [address for address in range(40070, 40193) if address not in holes]


def test_a_hole_is_found_in_few_requests() -> None:
    unit = Holed({40111})
    assert len(asyncio.run(readable(unit, SPANS[0]))) == 2
    assert unit.asked <= 2 * math.ceil(math.log2(123)) + 1


def test_a_map_without_holes_is_polled_as_before() -> None:
    columns, spans = asyncio.run(poll(Holed(())))
    assert spans == SPANS
    assert columns["p_w"] == 5000.0


def test_points_in_a_hole_are_not_implemented_and_the_others_keep_their_values() -> None:
    whole, _ = asyncio.run(poll(Holed(())))
    point = model_layout(701).points["Hz"]
    columns, spans = asyncio.run(poll(Holed({40070 + point.offset})))
    assert len(spans) == 4  # the part with the scale factors twice, before and after the other
    assert math.isnan(columns.pop("f_hz"))
    whole.pop("f_hz")
    np.testing.assert_equal(columns, whole)


def test_values_without_their_scale_factor_are_not_implemented() -> None:
    columns, _ = asyncio.run(poll(Holed({40070 + model_layout(701).points["W_SF"].offset})))
    assert math.isnan(columns["p_w"])
    assert columns["v_v"] == 120.0


def test_a_refusal_that_is_not_about_addresses_is_passed_on() -> None:
    with pytest.raises(DeviceRefused):
        asyncio.run(readable(Holed({40100}, code=6), SPANS[0]))


def test_the_driver_looks_for_holes_once_and_then_reads_around_them() -> None:
    async def story() -> None:
        unit = Holed({40070 + model_layout(701).points["Hz"].offset})
        device = Device(id="pv1", kind=DeviceKind.PV, driver="sunspec", endpoint=Endpoint("h", 502), bus="")
        driver = SunSpecDriver(device, unit, SystemClock(asyncio.get_running_loop()))
        await driver.connect()
        first = await driver.read()
        asked = unit.asked
        assert await driver.read() == first._replace(requested_s=ANY)
        assert unit.asked - asked == 4
        assert first.layout.decode(np.frombuffer(first.raw, np.uint8).reshape(1, -1))["p_w"][0] == 5000.0

    asyncio.run(story())
