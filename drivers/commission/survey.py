"""What a device is, read only: identity, models, what it measures now, what it takes, and what is odd about it.

Powers in W, + = injection for DER and + = import for meters; units are the last part of a column's name.
"""

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from derms.domain.arrays import FloatArray
from derms.domain.der import Device, DeviceKind, Endpoint
from derms.domain.telemetry import Identity
from derms.errors import DeviceMismatch, DeviceUnreachable, FieldError
from derms.ports import Clock, DeviceDriver, FieldOptions
from drivers.commission.cases import fingerprint
from drivers.commission.reading import is_known
from drivers.commission.subject import COMMON, ModelImage, Subject, patiently
from drivers.modbus.session import Sessions
from drivers.profiles.loader import packaged
from drivers.profiles.profile import Speaks
from drivers.registry import REGISTRY, drivers
from drivers.sunspec.models import definition

SUNSPEC = "sunspec"
KINDS = (DeviceKind.PV, DeviceKind.SYSTEM_METER, *DeviceKind)
"""What a driver is told that the device is, of the kinds that it is for, until one is right: power counts by it."""


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model of the chain."""

    model_id: int
    name: str
    address: int
    length: int


@dataclass(frozen=True)
class Survey:
    """All that a scan finds."""

    endpoint: Endpoint
    identity: Identity | None
    """None when no driver could speak with it."""
    names: Mapping[str, str]
    """Mn, Md, Vr and SN as the device gives them."""
    fingerprint: str
    models: tuple[ModelRow, ...]
    measures: Mapping[str, tuple[float, ...]]
    """Columns that have a value now."""
    oddities: tuple[str, ...]


async def survey(
    endpoint: Endpoint, *, profile: str, options: FieldOptions, clock: Clock, chance: random.Random
) -> Survey:
    """Look at a device without writing to it; raises FieldError when there is nothing to look at."""
    options = replace(options, read_only=True)
    models: tuple[ModelRow, ...] = ()
    names: Mapping[str, str] = {}
    layout, oddities = "", []
    if has_models(profile):
        subject = _quiet_subject(endpoint, profile, options, clock, chance)
        try:
            await subject.discover()
            models = tuple(_row(place.model_id, place.address, place.size) for place in subject.chain.places)
            names, layout = _names(await subject.model(COMMON)), fingerprint(subject.chain)
            oddities = await _oddities(subject)
        finally:
            subject.unit.disconnect()
    identity: Identity | None = None
    measures: Mapping[str, tuple[float, ...]] = {}
    try:
        identity, measures = await patiently(asyncio.sleep, partial(_drive, endpoint, profile, options, clock, chance))
    except FieldError as error:
        if not models:
            raise
        oddities.append(f"cannot be driven: {error}")
    return Survey(endpoint, identity, names or _given(identity), layout, models, measures, tuple(oddities))


def has_models(profile: str) -> bool:
    """Whether devices of a profile have SunSpec models."""
    return profile == SUNSPEC or packaged()[profile].speaks is Speaks.SUNSPEC


def _quiet_subject(
    endpoint: Endpoint, profile: str, options: FieldOptions, clock: Clock, chance: random.Random
) -> Subject:
    """A subject on a session of its own, that tells nobody anything and has no bare connection."""
    unit = Sessions(options, chance).unit(endpoint, REGISTRY[profile].link)
    return Subject(unit, clock, asyncio.sleep, say=_nobody, tell=_nobody, dial=None)


def _nobody(text: str) -> None:
    """Nobody listens."""


async def _drive(
    endpoint: Endpoint, profile: str, options: FieldOptions, clock: Clock, chance: random.Random
) -> tuple[Identity, Mapping[str, tuple[float, ...]]]:
    """Identity and present measurements through the driver, as the kind of device that it is."""
    mismatch: DeviceMismatch | None = None
    kinds = drivers().names[profile].kinds
    for kind in dict.fromkeys(kind for kind in KINDS if kind in kinds):
        device = Device(id="scan", kind=kind, driver=profile, endpoint=endpoint, bus="")
        driver = drivers().open([device], clock, options, chance)[device.id]
        try:
            identity = await driver.connect()
            return identity, await _measured(driver)
        except DeviceMismatch as error:
            mismatch = error
        finally:
            driver.disconnect()
    assert mismatch is not None, "there are kinds"
    raise mismatch


async def _measured(driver: DeviceDriver) -> Mapping[str, tuple[float, ...]]:
    reading = await driver.read()
    columns = reading.layout.decode(np.frombuffer(reading.raw, dtype=np.uint8)[np.newaxis])
    return {name: _cells(column) for name, column in columns.items() if np.isfinite(column).any()}


def _cells(column: FloatArray) -> tuple[float, ...]:
    return tuple(float(value) for value in np.atleast_1d(column[0]))


def _row(model_id: int, address: int, size: int) -> ModelRow:
    name = str(definition(model_id)["group"].get("label", "")) if is_known(model_id) else "not a known model: skipped"
    return ModelRow(model_id, name, address, size - 2)


def _names(common: ModelImage) -> Mapping[str, str]:
    return {name: common.text(name) for name in ("Mn", "Md", "Vr", "SN")}


def _given(identity: Identity | None) -> Mapping[str, str]:
    if identity is None:
        return {}
    return {"Mn": identity.manufacturer, "Md": identity.model, "Vr": identity.version, "SN": identity.serial}


async def _oddities(subject: Subject) -> list[str]:
    """What the device got wrong in its models, a sentence each."""
    found = []
    for place in subject.chain.places:
        if not is_known(place.model_id):
            continue
        try:
            image = await subject.image(place)
        except DeviceUnreachable:
            raise
        except FieldError as error:
            found.append(f"model {place.model_id} cannot be read: {error}")
            continue
        found += [fault if "model" in fault else f"model {place.model_id}: {fault}" for fault in image.faults()]
    return found
