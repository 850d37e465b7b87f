"""Discovery: where a device keeps its SunSpec map, which models are in it, who it is and what it can take.

The chain is followed by the lengths that the device gives, never by the definitions; unknown models are skipped.
Source: SunSpec Device Information Model Specification 1.2, 3 (discovery).
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from derms.domain.dispatch import Quantity
from derms.domain.telemetry import Identity
from derms.errors import DeviceMismatch, DeviceRefused
from drivers.modbus.transport import MAX_READ
from drivers.modbus.unit import Unit
from drivers.sunspec.codec import Image
from drivers.sunspec.control import Control, controls, reported
from drivers.sunspec.models import BASES, END_MODEL, SUNS

MAX_MODELS = 64
LAST_ADDRESS = 0xFFFF
COMMON_MODEL = 1
DESCRIBING_MODELS = (COMMON_MODEL, 120, 121, 123, 124, 702, 704, 713)
"""Models that say who a device is, what it can do and what it takes."""


@dataclass(frozen=True, slots=True)
class Place:
    """One model of a chain."""

    model_id: int
    address: int
    """Of the model's ID register."""
    size: int
    """Registers with ID and L."""


@dataclass(frozen=True)
class Chain:
    """The models of a device in address order."""

    places: tuple[Place, ...]

    def find(self, model_id: int) -> Place | None:
        """The first instance of a model."""
        return next((place for place in self.places if place.model_id == model_id), None)


@dataclass(frozen=True)
class Discovery:
    """All that a scan finds."""

    chain: Chain
    identity: Identity
    controls: Mapping[Quantity, Control]


async def scan(unit: Unit) -> Discovery:
    """Discover a device anew; raises DeviceMismatch for a map that is not SunSpec or not sound."""
    chain = await find_chain(unit)
    wanted = [place for model_id in DESCRIBING_MODELS if (place := chain.find(model_id))]
    images = {place.model_id: await read_image(unit, place) for place in wanted}
    if COMMON_MODEL not in images:
        raise DeviceMismatch("the device has no common model (1), so nobody knows who it is")
    found = controls(images)
    return Discovery(chain, _identity(images, found), found)


async def find_chain(unit: Unit) -> Chain:
    """Follow the model chain to its end; bounded in models and addresses."""
    address = await _base(unit) + len(SUNS) // 2
    places: list[Place] = []
    while (header := await _header(unit, address)) is not None:
        model_id, length = header
        place = Place(model_id, address, length + 2)
        address += place.size
        places.append(place)
        if address > LAST_ADDRESS or len(places) > MAX_MODELS:
            raise DeviceMismatch(
                f"the model chain has no end: model {model_id} at {place.address} has {length} registers"
            )
    return Chain(tuple(places))


async def read_image(unit: Unit, place: Place) -> Image:
    """Read a model in one request; what lies beyond its first 125 registers counts as not implemented."""
    return Image(place.model_id, await unit.read(place.address, min(place.size, MAX_READ)))


async def _base(unit: Unit) -> int:
    for base in BASES:
        try:
            if await unit.read(base, len(SUNS) // 2) == SUNS:
                return base
        except DeviceRefused:
            continue
    raise DeviceMismatch(f"no SunSpec map at any of {', '.join(map(str, BASES))}")


async def _header(unit: Unit, address: int) -> tuple[int, int] | None:
    """ID and L of the model at an address; None at the end of the chain, which some devices close without an L."""
    try:
        header = await unit.read(address, min(2, LAST_ADDRESS + 1 - address))
    except DeviceRefused:
        header = await unit.read(address, 1)
    model_id, *length = struct.unpack(f">{len(header) // 2}H", header)
    if model_id == END_MODEL:
        return None
    if not length:
        raise DeviceMismatch(f"the model chain breaks off at {address} with model {model_id}")
    return model_id, length[0]


def _identity(images: Mapping[int, Image], found: Mapping[Quantity, Control]) -> Identity:
    common = images[COMMON_MODEL]
    return Identity(
        manufacturer=common.text("Mn"),
        model=common.text("Md"),
        version=common.text("Vr"),
        serial=common.text("SN"),
        p_rated_w=reported(images, (702, "WMaxRtg"), (702, "WMax"), (120, "WRtg"), (121, "WMax")),
        s_rated_va=reported(images, (702, "VAMaxRtg"), (702, "VAMax"), (120, "VARtg"), (121, "VAMax")),
        energy_wh=reported(images, (713, "WHRtg"), (120, "WHRtg")),
        v_nominal_v=reported(images, (702, "VNomRtg"), (702, "VNom"), (121, "VRef")),
        takes_setpoint=Quantity.P_SET in found,
        takes_limit=Quantity.P_LIMIT in found,
    )
