"""The utility's system over Modbus: its points read in few requests, the plan written as a block of registers.

The block, at the address that the site file names, high registers first: 0 counter, 1 version, 2 status
(PublicationStatus), 3 mode (0 observe, 1 auto), 4 source (place in PlanSource), 5 number of steps, 6-7 plan, 8-9 start,
10-11 valid until, 12-13 published [s since 1970, uint32], 14 length of a step [s], 15 reserved; then per step net load
[W, + = import] and battery power [W, + = injection], float32 each; at 16 + 4 * STEPS_MAX the counter once more. It is
written there last: a reader takes the block when both counters are the same before and after it has read.
"""

import random
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from derms.domain.der import Endpoint
from derms.domain.mode import Mode
from derms.domain.plan import PlanSource, even_steps
from derms.domain.scada import Publication, RegisterPlace, Sample, ScadaPoint, modbus_place
from derms.errors import DeviceRefused, FieldError, ScadaError
from derms.ports import FieldOptions
from drivers.modbus.session import Sessions
from drivers.modbus.unit import MAX_READ, MAX_WRITE, Priority, Table, Unit

GAP_MAX = 8
"""Registers read for nothing rather than in a request of their own."""
STEPS_MAX = 192
"""Steps in the block; those beyond are not published this way."""
VERSION = 1
HEAD = struct.Struct(">5H4IHH")
"""The block after its counter, up to the steps."""
HEAD_REGISTERS = 16
LAST_OFFSET = HEAD_REGISTERS + 4 * STEPS_MAX
"""Of the second counter."""

_FORMATS = {"int16": ">h", "uint16": ">H", "int32": ">i", "uint32": ">I", "float32": ">f"}
_TABLES = {"holding": Table.HOLDING, "input": Table.INPUT}


@dataclass(frozen=True, slots=True)
class _Span:
    """Registers that one request reads."""

    unit: int
    table: str
    address: int
    count: int


def _spans(places: Sequence[RegisterPlace]) -> list[_Span]:
    """As few requests as cover all places."""
    wanted = sorted((place.unit, place.table, address, count) for place in places for address, count in _parts(place))
    spans: list[_Span] = []
    for unit, table, address, count in wanted:
        last = spans[-1] if spans else None
        end = address + count
        if (
            last
            and (last.unit, last.table) == (unit, table)
            and address <= last.address + last.count + GAP_MAX
            and end - last.address <= MAX_READ
        ):
            spans[-1] = _Span(unit, table, last.address, max(end - last.address, last.count))
        else:
            spans.append(_Span(unit, table, address, count))
    return spans


def _parts(place: RegisterPlace) -> Iterator[tuple[int, int]]:
    yield place.address, place.count
    if place.quality is not None:
        yield place.quality, 1


class ModbusScada:
    """A ScadaLink over the units of one endpoint; Modbus has no source time."""

    def __init__(self, units: Mapping[int, Unit], places: Mapping[str, RegisterPlace]) -> None:
        self._units = units
        self._places = places
        self._spans = _spans(list(places.values()))

    async def fetch(self) -> Sequence[Sample]:
        """All points; those in registers that a unit refuses, and those of silent units, are left out.

        Raises the FieldError of the last unit when none answers.
        """
        registers: dict[tuple[int, str, int], bytes] = {}
        silent = await self._connect()
        for span in self._spans:
            if span.unit in silent:
                continue
            try:
                data = await self._read(span)
            except DeviceRefused:
                continue
            except FieldError as error:
                silent[span.unit] = error
                continue
            for index in range(span.count):
                registers[span.unit, span.table, span.address + index] = data[2 * index : 2 * index + 2]
        if silent and silent.keys() == {span.unit for span in self._spans}:
            raise silent[max(silent)]
        samples = (_sample(where, place, registers) for where, place in self._places.items())
        return [sample for sample in samples if sample is not None]

    async def _connect(self) -> dict[int, FieldError]:
        """Connect all units before any is asked: a silent one that is alone on a connection has it closed for all."""
        silent: dict[int, FieldError] = {}
        for number, unit in self._units.items():
            try:
                if not unit.connected:
                    await unit.connect()
            except FieldError as error:
                silent[number] = error
        return silent

    async def _read(self, span: _Span) -> bytes:
        return await self._units[span.unit].read(span.address, span.count, table=_TABLES[span.table])


def _sample(where: str, place: RegisterPlace, registers: Mapping[tuple[int, str, int], bytes]) -> Sample | None:
    keys = [(place.unit, place.table, place.address + index) for index in range(place.count)]
    if place.quality is not None:
        keys.append((place.unit, place.table, place.quality))
    if any(key not in registers for key in keys):
        return None
    (value,) = struct.unpack(_FORMATS[place.type], b"".join(registers[key] for key in keys[: place.count]))
    quality = "" if place.quality is None else str(int.from_bytes(registers[keys[-1]], "big"))
    return Sample(where, float(value), quality)


class ModbusOutlet:
    """A PlanOutlet to a block of holding registers; see the module's text."""

    def __init__(self, unit: Unit, address: int) -> None:
        self._unit = unit
        self._address = address

    async def send(self, publication: Publication) -> None:
        """Write the block, its second counter last; raises FieldError."""
        if not self._unit.connected:
            await self._unit.connect()
        with ExitStack() as undo:
            undo.callback(self._unit.disconnect)
            last = await self._unit.read(self._address + LAST_OFFSET, 1)
            counter = struct.pack(">H", (int.from_bytes(last, "big") + 1) & 0xFFFF)
            block = counter + packed(publication)
            for start in range(0, len(block), 2 * MAX_WRITE):
                await self._write(start // 2, block[start : start + 2 * MAX_WRITE])
            await self._write(LAST_OFFSET, counter)
            undo.pop_all()

    async def _write(self, offset: int, data: bytes) -> None:
        # Nobody's setpoint waits behind the plan where both go through one endpoint.
        await self._unit.write(self._address + offset, data, priority=Priority.READ)


def packed(publication: Publication) -> bytes:
    """The block between its counters, as far as there are steps."""
    plan = publication.plan
    step_s, net_w, battery_w = even_steps(plan)
    steps = min(len(net_w), STEPS_MAX)
    times = (plan.start, publication.valid_until, publication.published_at)
    head = HEAD.pack(
        VERSION,
        publication.status,
        int(publication.mode is Mode.AUTO),
        tuple(PlanSource).index(plan.source),
        steps,
        plan.id & 0xFFFFFFFF,
        *(int(at.timestamp()) for at in times),
        round(step_s),
        0,
    )
    powers = zip(net_w[:steps].tolist(), battery_w[:steps].tolist(), strict=True)
    return head + b"".join(struct.pack(">ff", *step) for step in powers)


class ModbusEms:
    """Opens sources and outlets; see derms.ports.ScadaKit. Sources get connections that can never write."""

    def __init__(self, options: FieldOptions, chance: random.Random) -> None:
        self._reading = Sessions(replace(options, read_only=True), chance)
        self._writing = Sessions(options, chance)

    def source(self, url: str, points: Sequence[ScadaPoint]) -> ModbusScada:
        """Reads points from `modbus://host:port`; raises ScadaError for another address."""
        places = {point.where: place for point in points if (place := RegisterPlace.parse(point.where))}
        endpoint, _ = _place(url)
        numbers = {place.unit for place in places.values()}
        units = {number: self._reading.unit(replace(endpoint, unit=number)) for number in sorted(numbers)}
        return ModbusScada(units, places)

    def outlet(self, url: str) -> ModbusOutlet:
        """Publishes at `modbus://host:port/unit/address`; raises ScadaError for another address."""
        endpoint, address = _place(url)
        if address is None:
            raise ScadaError(f"'{url}' names no address")
        return ModbusOutlet(self._writing.unit(endpoint), address)


def _place(url: str) -> tuple[Endpoint, int | None]:
    place = modbus_place(url)
    if place is None:
        raise ScadaError(f"'{url}' is no modbus address")
    return place
