"""Discovery on maps at every base, with unknown models, odd lengths and broken chains."""

import asyncio
import math
import random
import struct
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import pytest

from derms.domain.dispatch import Quantity
from derms.errors import DeviceMismatch, DeviceRefused
from drivers.modbus.unit import Priority, Table
from drivers.sunspec.codec import Image
from drivers.sunspec.models import encode_model, layout
from drivers.sunspec.scan import MAX_IMAGE, MAX_MODELS, Discovery, Place, find_chain, pieces, read_image, scan, verify
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
from tests.drivers.spanwise import Spanwise


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
    assert Quantity.P_SET in identity.capabilities.takes
    assert Quantity.P_LIMIT in identity.capabilities.takes


def test_pv_inverter_without_setpoint_takes_limits_only() -> None:
    identity = scanned(map_bytes(PV_1547)).identity
    assert Quantity.P_SET not in identity.capabilities.takes
    assert Quantity.P_LIMIT in identity.capabilities.takes
    assert math.isnan(identity.energy_wh)


def test_legacy_battery_says_the_same_in_older_models() -> None:
    identity = scanned(map_bytes(BATTERY_LEGACY)).identity
    assert (identity.p_rated_w, identity.s_rated_va, identity.energy_wh) == (5000, 5200, 20000)
    assert identity.v_nominal_v == 240
    assert Quantity.P_SET in identity.capabilities.takes
    assert Quantity.P_LIMIT in identity.capabilities.takes


def test_meter_takes_nothing_and_rates_nothing() -> None:
    identity = scanned(map_bytes(METER)).identity
    assert Quantity.P_SET not in identity.capabilities.takes
    assert Quantity.P_LIMIT not in identity.capabilities.takes
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


class MapUnit(Spanwise):
    """A unit in this process: one run of registers, and a note of every request."""

    name = "map"
    connected = True

    def __init__(self, image: bytes, base: int = 40000, *, refused: int = 2) -> None:
        self.image, self.base, self.refused = bytearray(image), base, refused
        self.requests: list[tuple[int, int]] = []
        self.between: Callable[[], None] = lambda: None
        """Happens after every request."""

    async def connect(self) -> None: ...

    async def read(
        self, address: int, count: int, *, table: Table = Table.HOLDING, priority: Priority = Priority.READ
    ) -> bytes:
        self.requests.append((address, count))
        start = 2 * (address - self.base)
        data = bytes(self.image[start : start + 2 * count]) if start >= 0 else b""
        if len(data) < 2 * count:
            raise DeviceRefused(f"no registers at {address}", self.refused)
        self.between()
        return data

    async def write(self, address: int, data: bytes, *, priority: Priority = Priority.WRITE) -> None:
        raise NotImplementedError

    def disconnect(self) -> None: ...


def image_read(unit: MapUnit, model_id: int, size: int, registers_max: int = 125) -> Image:
    unit.registers_max = registers_max
    return asyncio.run(read_image(unit, Place(model_id, unit.base, size)))


def string_bank(strings: int) -> bytes:
    model = layout(803, {"NStr": strings})
    values = {f"string[{each}].StrSoC": 10 * each for each in range(strings)}
    return encode_model(model, {**values, "SoC_SF": -1, "CellV_SF": -3})


def test_model_that_fits_a_request_is_read_in_one() -> None:
    unit = MapUnit(string_bank(3))
    assert image_read(unit, 803, 28 + 3 * 32).number("string[2].StrSoC") == pytest.approx(2.0)
    assert unit.requests == [(40000, 124)]


def test_long_model_is_read_whole_in_requests_that_end_with_a_string() -> None:
    unit = MapUnit(string_bank(20))
    image = image_read(unit, 803, 28 + 20 * 32)
    assert [image.number(f"string[{each}].StrSoC") for each in range(20)] == pytest.approx(list(range(20)))
    *requests, scales = unit.requests
    assert requests[0] == (40000, 28)
    assert all(count <= 125 and count % 32 == 0 for _, count in requests[1:])
    assert sum(count for _, count in requests) == 28 + 20 * 32
    assert 40000 <= scales[0] < 40028
    assert image.faults() == []


def test_alarm_text_beyond_the_first_request_of_701_is_read_and_no_factor_twice() -> None:
    unit = MapUnit(encode_model(layout(701), {"W": 12, "W_SF": 1, "MnAlrmInfo": "fan"}))
    image = image_read(unit, 701, 155)
    assert (image.number("W"), image.text("MnAlrmInfo")) == (120, "fan")
    assert unit.requests == [(40000, 123), (40123, 32)]


def test_instance_shorter_or_longer_than_its_definition_is_read_by_its_length() -> None:
    short = MapUnit(encode_model(layout(701), {"W": 12, "W_SF": 1})[: 2 * 50])
    assert not image_read(short, 701, 50).implements("W_SF")
    assert short.requests == [(40000, 50)]
    long = MapUnit(encode_model(layout(704), {"WSetEna": 1}) + bytes(2 * 200))
    assert image_read(long, 704, 267).raw("WSetEna") == 1
    assert long.requests == [(40000, 67)]


def test_length_that_no_sound_model_has_is_read_no_further_than_a_bound() -> None:
    data = string_bank(2000)
    unit = MapUnit(data)
    image = image_read(unit, 803, len(data) // 2)
    assert image.number("string[100].StrSoC") == pytest.approx(100.0)
    assert sum(count for _, count in unit.requests) < MAX_IMAGE + 100
    assert image.faults()


@pytest.mark.parametrize("strings", [0, 5])
def test_strings_that_the_count_promises_and_the_length_does_not_hold_are_left_out(strings: int) -> None:
    data = bytearray(string_bank(strings))
    data[2 * 2 : 2 * 3] = struct.pack(">H", 99)
    image = image_read(MapUnit(bytes(data)), 803, 28 + strings * 32)
    assert [name for name in image.model.points if name.endswith("StrSoC")] == [
        f"string[{each}].StrSoC" for each in range(strings)
    ]
    assert image.faults()


def test_scale_factor_that_changes_between_two_requests_makes_its_values_missing() -> None:
    unit = MapUnit(string_bank(6))
    scale = layout(803).points["SoC_SF"]

    def change() -> None:
        if len(unit.requests) == 2:
            unit.image[2 * scale.offset : 2 * scale.end] = struct.pack(">h", 0)

    unit.between = change
    image = image_read(unit, 803, 28 + 6 * 32)
    assert math.isnan(image.number("string[5].StrSoC"))
    assert image.faults() == ["SoC_SF of model 803 changed while the model was read"]


@pytest.mark.parametrize("registers_max", [7, 10, 30, 64, 124])
@pytest.mark.parametrize("model_id", [701, 707, 803])
def test_careful_link_reads_the_same_in_more_requests(model_id: int, registers_max: int) -> None:
    counts = {"NCrvSet": 3, "NPt": 5} if model_id == 707 else {"NStr": 4} if model_id == 803 else {}
    model = layout(model_id, counts)
    chance = random.Random(registers_max)
    points = {point.name: chance.randrange(0x7F00) for point in model.points.values() if point.type == "uint16"}
    data = encode_model(model, {**points, "ID": model_id, "L": model.length, **counts})
    unit = MapUnit(data)
    image = image_read(unit, model_id, model.size, registers_max)
    assert {name: image.raw(name) for name in points} == {name: Image(model_id, data).raw(name) for name in points}
    assert max(count for _, count in unit.requests) <= registers_max


@pytest.mark.parametrize("registers_max", [10, 33, 64, 125])
def test_requests_cover_a_model_once_and_cut_no_point_that_fits(registers_max: int) -> None:
    model = layout(804, {"NMod": 9})
    found = pieces(model, 0, model.size, registers_max)
    assert found[0].start == 0
    assert found[-1].stop == model.size
    assert all(before.stop == after.start for before, after in pairwise(found))
    cut = {piece.stop for piece in found[:-1]}
    whole = (point for point in model.points.values() if point.size <= registers_max)
    assert not [point.name for point in whole if any(point.offset < at < point.end for at in cut)]


BATTERY_CHAIN = b"SunS" + b"".join(model_bytes(model_id, points) for model_id, points in BATTERY_1547.items())


def discovered(image: bytes, base: int = 40000) -> Discovery:
    return asyncio.run(scan(MapUnit(image, base)))


def test_device_is_proven_the_same_in_few_requests() -> None:
    known = discovered(BATTERY_CHAIN + END)
    unit = MapUnit(BATTERY_CHAIN + END)
    assert asyncio.run(verify(unit, known))
    assert len(unit.requests) == 3
    assert unit.requests[0] == (40000, 72)


CHANGES: Mapping[str, Callable[[bytes], bytes]] = {
    "serial number": lambda image: image.replace(b"SN-7", b"SN-8"),
    "firmware": lambda image: image.replace(b"1.0", b"1.1"),
    "maker": lambda image: image.replace(b"Acme", b"Emca"),
    "length of a model": lambda image: image.replace(struct.pack(">HH", 704, 65), struct.pack(">HH", 704, 64)),
    "another model": lambda image: image.replace(struct.pack(">HH", 713, 7), struct.pack(">HH", 802, 7)),
    "no map at the base": lambda image: b"SunT" + image[4:],
    "further model at the end": lambda image: image[: -len(END)] + raw_model(64999, 3) + END,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_device_that_changed_is_scanned_anew(change: Callable[[bytes], bytes]) -> None:
    image = BATTERY_CHAIN + END
    assert change(image) != image
    assert not asyncio.run(verify(MapUnit(change(image)), discovered(image)))


def test_device_that_lets_nothing_be_read_across_models_is_scanned_anew() -> None:
    known = discovered(BATTERY_CHAIN + END)
    assert not asyncio.run(verify(MapUnit(BATTERY_CHAIN[:200]), known))


def test_device_without_an_end_model_is_proven_too() -> None:
    known = discovered(BATTERY_CHAIN)
    assert not known.chain.closed
    assert asyncio.run(verify(MapUnit(BATTERY_CHAIN), known))


def test_measurements_and_settings_do_not_change_the_fingerprint() -> None:
    models = {**BATTERY_1547, 701: {"W": 1}, 702: {"WMaxRtg": 6000}}
    assert discovered(map_bytes(models)).fingerprint == discovered(BATTERY_CHAIN + END).fingerprint


def test_fingerprint_is_the_same_in_every_process() -> None:
    assert discovered(BATTERY_CHAIN + END).fingerprint == "93eca85d4fee97f9"


@pytest.mark.parametrize("change", [*list(CHANGES.values())[:3], CHANGES["further model at the end"]])
def test_fingerprint_changes_with_the_device(change: Callable[[bytes], bytes]) -> None:
    image = BATTERY_CHAIN + END
    assert discovered(change(image)).fingerprint != discovered(image).fingerprint


def test_fingerprint_changes_with_the_base() -> None:
    image = BATTERY_CHAIN + END
    assert discovered(image, 50000).fingerprint != discovered(image).fingerprint


@pytest.mark.parametrize("bases", [(0, 40000), (50000, 0, 40000)])
def test_bases_are_tried_in_the_order_of_the_profile(bases: Sequence[int]) -> None:
    unit = MapUnit(BATTERY_CHAIN + END)
    chain = asyncio.run(find_chain(unit, bases=bases))
    assert chain.places[0].address == 40002
    assert [address for address, _ in unit.requests[: len(bases)]] == list(bases)


def test_base_that_the_profile_leaves_out_is_not_tried() -> None:
    with pytest.raises(DeviceMismatch, match="no SunSpec map at any of 0, 50000"):
        asyncio.run(find_chain(MapUnit(BATTERY_CHAIN + END), bases=(0, 50000)))


@pytest.mark.parametrize("rest", [b"", bytes(2 * 60)], ids=["nothing", "zeros"])
def test_map_that_just_stops_is_taken_as_far_as_it_goes(rest: bytes) -> None:
    assert [place.model_id for place in discovered(BATTERY_CHAIN + rest).chain.places] == list(BATTERY_1547)


def test_device_that_is_busy_in_the_middle_of_its_chain_is_not_taken_for_one_with_less() -> None:
    with pytest.raises(DeviceRefused):
        asyncio.run(scan(MapUnit(BATTERY_CHAIN, refused=6)))


def test_battery_without_a_state_of_charge_or_a_setpoint_takes_no_dispatch() -> None:
    no_setpoint = {**BATTERY_1547, 704: PV_1547[704]}
    no_charge = {model_id: points for model_id, points in BATTERY_1547.items() if model_id != 713}
    for models in (no_setpoint, no_charge):
        found = discovered(map_bytes(models))
        assert Quantity.P_SET not in found.identity.capabilities.takes
        assert set(found.controls) == {Quantity.P_LIMIT}


def test_battery_bank_says_its_energy() -> None:
    models = {**PV_1547, 802: {"WHRtg": 135, "WHRtg_SF": 2, "SoC": 50, "SoC_SF": 0}}
    assert discovered(map_bytes(models)).identity.energy_wh == 13500


def test_sentinel_of_a_maker_leaves_a_rating_out() -> None:
    found = asyncio.run(scan(MapUnit(BATTERY_CHAIN + END), absent=(("uint16", 5000),)))
    assert math.isnan(found.identity.p_rated_w)


def test_name_that_would_harm_a_screen_is_shown_as_plain_text() -> None:
    common = {**COMMON, "Mn": "\x1b[2JAc\u202eme\r\n", "SN": "'; DROP TABLE"}
    identity = discovered(map_bytes({**BATTERY_1547, 1: common})).identity
    assert (identity.manufacturer, identity.serial) == ("Acme", "'; DROP TABLE")
