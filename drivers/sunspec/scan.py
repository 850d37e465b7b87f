"""Discovery: where a device keeps its SunSpec map, which models are in it, who it is and what it can take.

The chain is followed by the lengths that the device gives, never by the definitions; unknown models are skipped.
Source: SunSpec Device Information Model Specification 1.2, 3 (discovery).
"""

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from operator import gt, lt, ne

from derms.domain.dispatch import Capabilities, Quantity
from derms.domain.telemetry import Identity
from derms.errors import DeviceMismatch, DeviceRefused, DeviceUnreachable
from drivers.modbus.unit import Priority, Unit
from drivers.sunspec.codec import Image
from drivers.sunspec.control import Control, controls, reported, smallest
from drivers.sunspec.models import BASES, END_MODEL, SUNS, Absent, Model, Point, counts_of, layout_of, model_layout

MAX_MODELS = 64
LAST_ADDRESS = 0xFFFF
COMMON_MODEL = 1
NO_MODEL = 0
"""What stands after the last model of a device that fills its map with zeros."""
GATEWAY = (10, 11)
"""Exceptions with which a gateway says that it does not reach the device."""
ILLEGAL = (2, 3)
"""Exceptions with which a device refuses registers that it does not have."""
DESCRIBING_MODELS = (COMMON_MODEL, 120, 121, 123, 124, 702, 704, 713, 802)
"""Models that say who a device is, what it can do and what it takes."""
FINGERPRINT_BYTES = 8
MAX_IMAGE = 4096
"""Registers that are read of one model; the longest sound ones, curves and battery strings, have less than half."""


@dataclass(frozen=True, slots=True)
class Place:
    """One model of a chain."""

    model_id: int
    address: int
    """Of the model's ID register."""
    size: int
    """Registers with ID and L."""

    @property
    def head(self) -> bytes:
        """Its ID and L as they stand in the map: what proves that the model is still where it was."""
        return struct.pack(">HH", self.model_id, self.size - 2)


@dataclass(frozen=True)
class Chain:
    """The models of a device in address order."""

    places: tuple[Place, ...]
    closed: bool = True
    """Whether an end model closes it; some devices have nothing after their last model, or zeros."""

    @property
    def end(self) -> int:
        """Address after the last model; 0 without one."""
        return self.places[-1].address + self.places[-1].size if self.places else 0

    def find(self, model_id: int) -> Place | None:
        """The first instance of a model."""
        return next((place for place in self.places if place.model_id == model_id), None)


@dataclass(frozen=True)
class Discovery:
    """All that a scan finds."""

    chain: Chain
    identity: Identity
    controls: Mapping[Quantity, Control]

    @property
    def fingerprint(self) -> str:
        """Tells this map on this device from every other: it changes with make, model, version, serial number, base
        address and the chain of models and lengths, and with nothing else."""
        who = self.identity
        chain = [f"{place.address} {place.model_id} {place.size}" for place in self.chain.places]
        text = "\n".join([who.manufacturer, who.model, who.version, who.serial, *chain])
        return blake2b(text.encode(), digest_size=FINGERPRINT_BYTES).hexdigest()


async def scan(unit: Unit, *, bases: Sequence[int] = BASES, absent: Absent = ()) -> Discovery:
    """Discover a device anew; raises DeviceMismatch for a map that is not SunSpec or not sound.

    `bases` are tried in order; one that is refused is passed over.
    """
    chain = await find_chain(unit, bases=bases)
    wanted = [place for model_id in DESCRIBING_MODELS if (place := chain.find(model_id))]
    images = {place.model_id: await read_image(unit, place, absent=absent) for place in wanted}
    if COMMON_MODEL not in images:
        raise DeviceMismatch("the device has no common model (1), so nobody knows who it is")
    found = controls(images)
    return Discovery(chain, _identity(images, found), found)


async def verify(unit: Unit, known: Discovery) -> bool:
    """Whether a device is still the one that was scanned, from model 1 and the headers of the chain in few requests.

    False calls for a scan: another device or map, or a device that does not let registers be read across models.
    """
    chain = known.chain
    common = chain.find(COMMON_MODEL)
    if common is None:
        return False
    expected = {place.address: struct.pack(">HH", place.model_id, place.size - 2) for place in chain.places}
    expected[chain.places[0].address - len(SUNS) // 2] = SUNS
    if chain.closed:
        expected[chain.end] = struct.pack(">H", END_MODEL)
    wanted = [range(address, address + len(words) // 2) for address, words in expected.items()]
    points = [point for point in model_layout(COMMON_MODEL).points.values() if point.end <= common.size]
    wanted += [range(common.address + point.offset, common.address + point.end) for point in points]
    try:
        held = await _registers(unit, [*wanted, range(common.address, common.address + common.size)])
    except DeviceRefused:
        return False
    if any(_joined(held, address, len(words) // 2) != words for address, words in expected.items()):
        return False
    image, who = Image(COMMON_MODEL, _joined(held, common.address, common.size)), known.identity
    texts = tuple(image.text(name) for name in ("Mn", "Md", "Vr", "SN"))
    return texts == (who.manufacturer, who.model, who.version, who.serial)


async def _registers(unit: Unit, wanted: Iterable[range]) -> Mapping[int, bytes]:
    """Registers by address that cover ranges of addresses, in as few requests as possible.

    A request ends where a range ends, unless none does within its reach.
    """
    found: dict[int, bytes] = {}
    ranges = sorted(wanted, key=lambda addresses: addresses.start)
    for address in (address for addresses in ranges for address in addresses):
        if address not in found:
            reach = range(address + 1, address + unit.registers_max + 1)
            end = max((addresses.stop for addresses in ranges if addresses.stop in reach), default=reach[-1])
            data = await unit.read(address, end - address)
            found.update((address + at, data[2 * at : 2 * at + 2]) for at in range(end - address))
    return found


def _joined(registers: Mapping[int, bytes], address: int, count: int) -> bytes:
    return b"".join(registers[address + at] for at in range(count))


async def find_chain(unit: Unit, *, bases: Sequence[int] = BASES) -> Chain:
    """Follow the model chain to its end; bounded in models and addresses.

    A device that refuses the registers after a model, or has zeros there, has come to its end too.
    """
    address = await _base(unit, bases) + len(SUNS) // 2
    places: list[Place] = []
    while True:
        try:
            model_id, length = await _header(unit, address)
        except DeviceRefused as error:
            if not places or error.code not in ILLEGAL:
                raise
            return Chain(tuple(places), closed=False)
        if model_id in (END_MODEL, NO_MODEL):
            return Chain(tuple(places), closed=model_id == END_MODEL)
        place = Place(model_id, address, length + 2)
        address += place.size
        places.append(place)
        if address > LAST_ADDRESS or len(places) > MAX_MODELS:
            raise DeviceMismatch(
                f"the model chain has no end: model {model_id} at {place.address} has {length} registers"
            )


async def read_image(unit: Unit, place: Place, *, absent: Absent = (), priority: Priority = Priority.READ) -> Image:
    """Read a model whole, in as few requests as `pieces` makes of it.

    Values and their scale factors that do not fit one request may be of two moments. Then the scale factors are read
    before the first and after the last of their values, and one that changed makes NaN of what it scales; see
    `Image.faults`.
    What lies beyond MAX_IMAGE counts as not implemented. KeyError for a model that is not known.
    """
    model, registers_max = model_layout(place.model_id), unit.registers_max
    size = min(place.size, MAX_IMAGE if counts_of(place.model_id) else model.size)
    if size <= registers_max:
        return Image(place.model_id, await unit.read(place.address, size, priority=priority), absent=absent)
    requests = pieces(model, 0, min(size, model.size), registers_max)
    before = await _factors(unit, place, model, apart(model, model.points.values(), requests, lt), priority)
    data = await _read(unit, place, requests, priority)
    if model.size < size:
        model = layout_of(place.model_id, data, size)
        more = pieces(model, len(data) // 2, min(size, model.size), registers_max)
        data += await _read(unit, place, more, priority)
        requests += more
    after = await _factors(unit, place, model, apart(model, model.points.values(), requests, gt), priority)
    seen = (*before.items(), *after.items())
    unsteady = {scale.name for scale, word in seen if word != data[2 * scale.offset : 2 * scale.end]}
    return Image(place.model_id, data, absent=absent, unsteady=unsteady)


async def _factors(
    unit: Unit, place: Place, model: Model, scales: Sequence[Point], priority: Priority
) -> Mapping[Point, bytes]:
    """The bytes of scale factors, in order of their offsets, as they are now."""
    if not scales:
        return {}
    first, end = scales[0].offset, scales[-1].end
    data = await _read(unit, place, pieces(model, first, end, unit.registers_max), priority)
    return {scale: data[2 * (scale.offset - first) : 2 * (scale.end - first)] for scale in scales}


async def _read(unit: Unit, place: Place, requests: Iterable[range], priority: Priority) -> bytes:
    return b"".join(
        [await unit.read(place.address + request.start, len(request), priority=priority) for request in requests]
    )


def apart(
    model: Model, points: Iterable[Point], requests: Sequence[range], which: Callable[[int, int], bool] = ne
) -> list[Point]:
    """The scale factors that are read, and in another request than one of their points; in order of their offsets.

    `which` compares the place of that point's request with the factor's: `lt` for factors that come after a point of
    theirs, `gt` for those that come before one.
    """
    homes = {offset: number for number, request in enumerate(requests) for offset in request}
    scaled = [(point, scale) for point in points if isinstance(scale := model.scale_of(point), Point)]
    found = {
        scale
        for point, scale in scaled
        if {point.offset, scale.offset} <= homes.keys() and which(homes[point.offset], homes[scale.offset])
    }
    return sorted(found, key=lambda scale: scale.offset)


def pieces(model: Model, start: int, end: int, registers_max: int) -> list[range]:
    """Offsets of a model from `start` to `end` in requests of at most `registers_max` registers each.

    A cut falls before a repeat of an outermost group where one begins in the request, else before a point; only a
    point that is longer than a request is cut itself.
    """
    points = sorted(
        (point for point in model.points.values() if start <= point.offset < end), key=lambda point: point.offset
    )
    outer = {point.offset: point.group.partition(".")[0] for point in points}
    groups = {at for before, at in pairwise(outer) if outer[before] != outer[at]}
    found: list[range] = []
    while start < end:
        stop = start + registers_max
        if stop < end:
            cuts = [point.offset for point in points if start < point.offset <= stop] or [stop]
            stop = max([cut for cut in cuts if cut in groups] or cuts)
        found.append(range(start, min(stop, end)))
        start = stop
    return found


async def _base(unit: Unit, bases: Sequence[int]) -> int:
    failing: DeviceRefused | None = None
    for base in bases:
        try:
            if await unit.read(base, len(SUNS) // 2) == SUNS:
                return base
        except DeviceRefused as error:
            if error.code in GATEWAY:
                raise DeviceUnreachable(f"no such unit there: {error}") from error
            if error.code not in ILLEGAL:
                failing = error  # a device in trouble, of which nobody can say that it has no map
    if failing is not None:
        raise failing
    raise DeviceMismatch(f"no SunSpec map at any of {', '.join(map(str, bases))}")


async def _header(unit: Unit, address: int) -> tuple[int, int]:
    """ID and L of the model at an address; some devices close the chain without an L, which is 0 then."""
    try:
        header = await unit.read(address, min(2, LAST_ADDRESS + 1 - address))
    except DeviceRefused:
        header = await unit.read(address, 1)
    model_id, *length = struct.unpack(f">{len(header) // 2}H", header)
    if not length and model_id != END_MODEL:
        raise DeviceMismatch(f"the model chain breaks off at {address} with model {model_id}")
    return model_id, length[0] if length else 0


def _identity(images: Mapping[int, Image], found: Mapping[Quantity, Control]) -> Identity:
    common = images[COMMON_MODEL]
    return Identity(  # with the smallest of one rating each: a rating of zero is none
        manufacturer=common.text("Mn"),
        model=common.text("Md"),
        version=common.text("Vr"),
        serial=common.text("SN"),
        p_rated_w=smallest(reported(images, (702, "WMaxRtg"), (702, "WMax"), (120, "WRtg"), (121, "WMax"))),
        s_rated_va=smallest(reported(images, (702, "VAMaxRtg"), (702, "VAMax"), (120, "VARtg"), (121, "VAMax"))),
        energy_wh=smallest(reported(images, (713, "WHRtg"), (802, "WHRtg"), (120, "WHRtg"))),
        v_nominal_v=smallest(reported(images, (702, "VNomRtg"), (702, "VNom"), (121, "VRef"))),
        capabilities=Capabilities(takes=frozenset(found)),
    )
