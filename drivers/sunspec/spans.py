"""Reading around holes: registers inside a model that a device refuses to read are found once, by halving.

A block that is refused with `illegal data address` is halved until what is refused is single registers. From then on
the device is asked for the parts between; points in a hole are not implemented.
"""

from collections.abc import Mapping, Sequence

from derms.errors import DeviceRefused
from drivers.modbus.unit import Span, Unit
from drivers.sunspec.telemetry import Part, SunSpecLayout

ILLEGAL_ADDRESS = 2


async def readable(unit: Unit, span: Span) -> list[Span]:
    """The parts of a span that a device gives, in order, as long as they can be; raises every other FieldError.

    About 2 log2(count) requests for each hole.
    """
    try:
        await unit.read(span.address, span.count)
    except DeviceRefused as error:
        if error.code != ILLEGAL_ADDRESS:
            raise
    else:
        return [span]
    if span.count == 1:
        return []
    half = span.count // 2
    left = await readable(unit, Span(span.address, half))
    right = await readable(unit, Span(span.address + half, span.count - half))
    if left and right and left[-1].address + left[-1].count == right[0].address:
        joined = Span(left[-1].address, left[-1].count + right[0].count)
        return [*left[:-1], joined, *right[1:]]
    return left + right


def around(
    layout: SunSpecLayout, spans: Sequence[Span], found: Mapping[Span, Sequence[Span]]
) -> tuple[SunSpecLayout, tuple[Span, ...]]:
    """The layout and requests of a poll that leaves holes out; `found` has the readable parts of every span.

    Scale factors stand at the end of a model: the last part of a span with a hole is read before the others too, so
    that values of the others meet factors of which it is known that they have not changed meanwhile.
    """
    parts: list[Part] = []
    asked: list[Span] = []
    start = registers = 0
    for span in spans:
        pieces = found[span]
        for piece in pieces if len(pieces) < 2 else (pieces[-1], *pieces):
            moved = registers - (start + piece.address - span.address)
            for part in layout.parts:
                first = max(part.start, registers - moved)
                last = min(part.start + part.count, registers - moved + piece.count)
                if first < last:
                    parts.append(Part(part.model_id, part.first + first - part.start, last - first, first + moved))
            asked.append(piece)
            registers += piece.count
        start += span.count
    return SunSpecLayout(registers, tuple(parts), layout.absent), tuple(asked)
