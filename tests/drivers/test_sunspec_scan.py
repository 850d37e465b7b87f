"""Discovery on maps at every base, with unknown models, odd lengths and broken chains."""

import asyncio
import math
import struct
from collections.abc import Mapping

import pytest

from derms.errors import DeviceMismatch
from drivers.sunspec.scan import MAX_MODELS, Discovery, Place, scan
from tests.drivers.oracles import (
    BATTERY_1547,
    BATTERY_LEGACY,
    COMMON,
    END,
    METER,
    PV_1547,
    Points,
    connection_to,
    map_bytes,
    model_bytes,
    pymodbus_device,
)


def scanned(image: bytes, base: int = 40000) -> Discovery:
    async def scenario() -> Discovery:
        async with pymodbus_device(image, base) as device:
            connection = connection_to(device.port)
            await connection.connect()
            try:
                return await scan(connection)
            finally:
                connection.disconnect()

    return asyncio.run(scenario())


def raw_model(model_id: int, length: int) -> bytes:
    return struct.pack(">HH", model_id, length) + bytes(2 * length)


@pytest.mark.parametrize("base", [40000, 50000, 0])
def test_map_is_found_at_every_base(base: int) -> None:
    found = scanned(map_bytes(PV_1547), base)
    assert [place.model_id for place in found.chain.places] == list(PV_1547)
    assert found.chain.find(1) == Place(1, base + 2, 68)
    assert found.chain.find(701) == Place(701, base + 70, 155)


def test_battery_says_who_it_is_and_what_it_can_do() -> None:
    identity = scanned(map_bytes(BATTERY_1547)).identity
    assert (identity.manufacturer, identity.model, identity.version, identity.serial) == ("Acme", "Box", "1.0", "SN-7")
    assert (identity.p_rated_w, identity.s_rated_va, identity.v_nominal_v) == (5000, 5500, 240)
    assert identity.energy_wh == 20000
    assert identity.takes_setpoint
    assert identity.takes_limit


def test_pv_inverter_without_setpoint_takes_limits_only() -> None:
    identity = scanned(map_bytes(PV_1547)).identity
    assert not identity.takes_setpoint
    assert identity.takes_limit
    assert math.isnan(identity.energy_wh)


def test_legacy_battery_says_the_same_in_older_models() -> None:
    identity = scanned(map_bytes(BATTERY_LEGACY)).identity
    assert (identity.p_rated_w, identity.s_rated_va, identity.energy_wh) == (5000, 5200, 20000)
    assert identity.v_nominal_v == 240
    assert identity.takes_setpoint
    assert identity.takes_limit


def test_meter_takes_nothing_and_rates_nothing() -> None:
    identity = scanned(map_bytes(METER)).identity
    assert not identity.takes_setpoint
    assert not identity.takes_limit
    assert math.isnan(identity.p_rated_w)


@pytest.mark.parametrize("missing", ["WMaxRtg", "WMax"])
def test_rating_comes_from_the_setting_when_the_rating_is_missing(missing: str) -> None:
    ratings = {name: value for name, value in PV_1547[702].items() if name != missing}
    models: Mapping[int, Points] = {**PV_1547, 702: ratings}
    assert scanned(map_bytes(models)).identity.p_rated_w == 5000


def test_unknown_model_and_unexpected_lengths_are_stepped_over_by_length() -> None:
    common_65 = b"\x00\x01\x00\x41" + model_bytes(1, COMMON)[4 : 4 + 2 * 65]
    vendor = raw_model(64999, 7)
    stunted = raw_model(713, 2)
    found = scanned(b"SunS" + common_65 + vendor + stunted + model_bytes(203, METER[203]) + END)
    assert [(place.model_id, place.size) for place in found.chain.places] == [(1, 67), (64999, 9), (713, 4), (203, 107)]
    assert found.identity.serial == "SN-7"


def test_end_model_without_a_length_register_ends_the_chain() -> None:
    found = scanned(b"SunS" + model_bytes(1, COMMON) + b"\xff\xff")
    assert [place.model_id for place in found.chain.places] == [1]


BROKEN = {
    "no SunSpec map": (b"Moon" + model_bytes(1, COMMON) + END, "no SunSpec map"),
    "no common model": (b"SunS" + model_bytes(713, {}) + END, "no common model"),
    "length beyond the address space": (b"SunS" + raw_model(1, 10) + b"\x00\x05\xff\xff", "no end"),
    "more models than anybody has": (b"SunS" + raw_model(64999, 0) * (MAX_MODELS + 5) + END, "no end"),
    "chain that stops in the middle": (b"SunS" + model_bytes(1, COMMON) + b"\x02\xbd", "breaks off"),
}


@pytest.mark.parametrize(("image", "why"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_map_is_refused_with_the_reason(image: bytes, why: str) -> None:
    with pytest.raises(DeviceMismatch, match=why):
        scanned(image)


def test_map_at_the_last_address_is_read_to_its_end() -> None:
    image = b"SunS" + model_bytes(1, COMMON) + raw_model(64999, 0x10000 - 50000 - 2 - 68 - 2 - 1)
    found = scanned(image + b"\xff\xff", base=50000)
    assert [place.model_id for place in found.chain.places] == [1, 64999]
