"""Cases that only read: discovery, the common model, the TCP interface, implementation, model reads, scale factors.

Source: SunSpec Modbus Conformance for IEEE 1547-2018 Test Procedures 1.0, cases by name; the points that the profile
requires are those marked with the standard in the model definitions.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from functools import cache
from typing import Any

from derms.errors import DeviceRefused
from drivers.commission.raw import READ, RawLink, read_request
from drivers.commission.subject import Dial, ModelImage, Subject, path_of
from drivers.commission.verdict import Verdict, absent, failed, judged
from drivers.sunspec.codec import MAX_EXPONENT
from drivers.sunspec.models import BASES, END_MODEL, SUNS, Point, definition
from drivers.sunspec.scan import Place

PROFILE = "IEEE 1547-2018"
PROFILE_MODELS = (1, 701, 702, 703, 704, 705, 706, 707, 708, 709, 710, 711, 712)
"""What every device of the profile has; a battery has 713 too."""
COMMON_LENGTHS = (65, 66)
"""Model 1 with and without its last padding register."""
READ_TRIES = 3
SMALL_CHUNK = 16
"""Registers per request when a model is read in several."""
PAUSE_S = 0.3
"""Between the parts of a request that comes in pieces [s]."""

_ONE_PHASE = frozenset({"VL1L2", "VL2L3", "VL3L1", "VL2", "VL3", "LLV"})
_TWO_PHASES = frozenset({"VL2L3", "VL3L1", "VL3"})
PHASES_LACKING: Mapping[int, frozenset[str]] = {0: _ONE_PHASE, 1: _TWO_PHASES}
"""Voltages of 701 that a device cannot have, by its ACType."""
STORAGE_POINTS = frozenset({"WChaRteMaxRtg", "VAChaRteMaxRtg"})
"""Ratings of 702 that only a battery has."""


async def general_discovery(subject: Subject) -> Verdict:
    """DEV-1: 'SunS' at a base address, model 1 behind it, known models as long as defined, and an end."""
    mistakes = []
    if subject.base not in BASES:
        mistakes.append(f"the map begins at {subject.base}")
    first, last = subject.chain.places[0], subject.chain.places[-1]
    if first.model_id != 1:
        mistakes.append(f"model {first.model_id} comes first")
    mistakes += [text async for text in _wrong_lengths(subject)]
    end = await subject.read(last.address + last.size, 1)
    if end != END_MODEL.to_bytes(2, "big"):
        mistakes.append("the chain has no end model")
    chain = ", ".join(str(place.model_id) for place in subject.chain.places)
    return judged(mistakes, f"base {subject.base}, models {chain}")


async def _wrong_lengths(subject: Subject) -> AsyncIterator[str]:
    for place in subject.chain.places:
        if not is_known(place.model_id):
            continue
        due = (await subject.image(place)).model.size
        fits = place.size in {length + 2 for length in COMMON_LENGTHS} if place.model_id == 1 else place.size >= due
        if not fits:
            yield f"model {place.model_id} has {place.size - 2} registers, its points need {due - 2}"


async def common_model(subject: Subject) -> Verdict:
    """DEV-2: manufacturer, model and serial number are there and can be printed."""
    image = await subject.model(1)
    mistakes = [f"{name} is empty" for name in ("Mn", "Md", "SN") if not image.raw(name)]
    for name in ("Mn", "Md", "Opt", "Vr", "SN"):
        data = image.registers(image.model.points[name]).rstrip(b"\0")
        if not all(0x20 <= byte < 0x7F for byte in data):
            mistakes.append(f"{name} holds bytes that are no text")
    return judged(mistakes, " ".join(str(image.raw(name) or "") for name in ("Mn", "Md", "Vr", "SN")))


async def tcp_interface(subject: Subject) -> Verdict:
    """TCP-1: a request on a fresh connection is answered with its own transaction id, unit and function."""
    return await _on_the_wire(subject, _whole_request)


async def partial_request(subject: Subject) -> Verdict:
    """TCP-2: half a request is not answered, and does not keep the next client from being served."""
    return await _on_the_wire(subject, _half_request)


async def multiple_packets(subject: Subject) -> Verdict:
    """TCP-3: a request that comes in several TCP packets is answered once it is whole."""
    return await _on_the_wire(subject, _request_in_packets)


async def _on_the_wire(subject: Subject, talk: Callable[[Subject, Dial], Awaitable[Verdict]]) -> Verdict:
    """Run a talk on a bare connection, alone: some devices serve one client only."""
    if subject.dial is None:
        return absent("bare frames go over plain TCP only")
    subject.unit.disconnect()
    return await talk(subject, subject.dial)


async def _whole_request(subject: Subject, dial: Dial) -> Verdict:
    link = await dial()
    try:
        link.send(read_request(0x1234, link.unit, subject.base, len(SUNS) // 2))
        return judged(await _suns_mistakes(link, 0x1234), "answered with its own transaction id")
    finally:
        link.close()


async def _half_request(subject: Subject, dial: Dial) -> Verdict:
    link = await dial()
    try:
        link.send(read_request(1, link.unit, subject.base, len(SUNS) // 2)[:8])
        if not await link.is_silent(subject.wait, PAUSE_S):
            return failed("half a request was answered")
    finally:
        link.close()
    again = await dial()
    try:
        again.send(read_request(2, again.unit, subject.base, len(SUNS) // 2))
        return judged(await _suns_mistakes(again, 2), "half a request is not answered, the next connection is served")
    finally:
        again.close()


async def _request_in_packets(subject: Subject, dial: Dial) -> Verdict:
    link = await dial()
    request = read_request(3, link.unit, subject.base, len(SUNS) // 2)
    try:
        for part in (request[:5], request[5:9], request[9:]):
            link.send(part)
            await subject.wait(PAUSE_S)
        return judged(await _suns_mistakes(link, 3), "three packets are one request")
    finally:
        link.close()


async def _suns_mistakes(link: RawLink, transaction: int) -> list[str]:
    found, pdu = await link.answer()
    due = bytes([READ, len(SUNS)]) + SUNS
    mistakes = [] if found == transaction else [f"transaction id {found} answers {transaction}"]
    return mistakes + ([] if pdu == due else [f"answer {pdu.hex()}, expected {due.hex()}"])


@cache
def is_known(model_id: int) -> bool:
    """Whether there is a definition of a model."""
    try:
        return bool(definition(model_id))
    except KeyError:
        return False


@cache
def required(model_id: int, profile: bool) -> frozenset[str]:
    """Paths of the points that a model must implement: the mandatory ones, and those that the profile marks."""
    return frozenset(_required(definition(model_id)["group"], "", profile))


def _required(group: Mapping[str, Any], prefix: str, profile: bool) -> Iterator[str]:
    for point in group["points"]:
        if point.get("mandatory") == "M" or (profile and PROFILE in point.get("standards", ())):
            yield prefix + point["name"]
    for child in group.get("groups", ()):
        yield from _required(child, f"{prefix}{child['name']}.", profile)


async def implementation(subject: Subject) -> Verdict:
    """MOD-1: what the models, and the IEEE 1547 profile where the device has its models, require is implemented."""
    profile = subject.chain.find(701) is not None
    storage = subject.chain.find(713) is not None
    needed = PROFILE_MODELS if profile else (1,)
    mistakes = [f"model {model_id} is missing" for model_id in needed if not subject.chain.find(model_id)]
    count = 0
    for place in subject.chain.places:
        if not is_known(place.model_id):
            continue
        image = await subject.image(place)
        points = [point for point in image.model.points.values() if _is_due(image, point, profile, storage)]
        count += len(points)
        mistakes += [f"{point.name} of model {place.model_id}" for point in points if not image.implements(point.name)]
    what = f"points marked with {PROFILE}" if profile else "mandatory points; the device has no 1547 models"
    verdict = judged(mistakes, f"{count} {what}")
    return verdict if not mistakes else failed("not implemented: " + verdict.text)


def _is_due(image: ModelImage, point: Point, profile: bool, storage: bool) -> bool:
    path = path_of(point)
    if path not in required(image.model.id, profile) or point.type == "pad" or point.type.startswith("acc"):
        return False
    if image.model.id == 701 and path in PHASES_LACKING.get(image.whole("ACType", -1), frozenset()):
        return False
    if image.model.id == 702 and path in STORAGE_POINTS and not storage:
        return False
    return not _is_spare(image, point)


def _is_spare(image: ModelImage, point: Point) -> bool:
    """Whether a point belongs to a curve point beyond those in use."""
    curve, found, rest = point.name.rpartition(".Pt[")
    active = image.raw(f"{curve}.ActPt") if found else None
    return active is not None and int(rest.partition("]")[0]) >= int(active)


async def model_read(subject: Subject) -> Verdict:
    """MOD-2: a model read in several requests is the model read in as few as fit."""
    mistakes = []
    for place in subject.chain.places:
        try:
            if not await _reads_alike(subject, place):
                mistakes.append(f"model {place.model_id} at {place.address} differs")
        except DeviceRefused as error:
            mistakes.append(f"model {place.model_id}: {error}")
    return judged(mistakes, f"{len(subject.chain.places)} models, whole and in requests of {SMALL_CHUNK} registers")


async def _reads_alike(subject: Subject, place: Place) -> bool:
    """Whether what stood still between two whole reads is the same in a read by pieces between them."""
    for _ in range(READ_TRIES):
        before = await subject.read(place.address, place.size)
        pieces = await subject.read(place.address, place.size, chunk=SMALL_CHUNK)
        after = await subject.read(place.address, place.size)
        still = [at for at in range(len(before)) if before[at] == after[at]]
        if all(pieces[at] == before[at] for at in still):
            return True
    return False


async def scale_factors(subject: Subject) -> Verdict:
    """SF: every scale factor of an implemented point is in -10..10 and does not change from read to read."""
    mistakes: list[str] = []
    count = 0
    for place in subject.chain.places:
        if not is_known(place.model_id):
            continue
        first, second = await subject.image(place), await subject.image(place)
        for name in sorted(scales_in_use(first)):
            count += 1
            exponent = first.raw(name)
            if exponent is None or not -MAX_EXPONENT <= int(exponent) <= MAX_EXPONENT:
                mistakes.append(f"{name} of model {place.model_id} is {'absent' if exponent is None else exponent}")
            elif second.raw(name) != exponent:
                mistakes.append(f"{name} of model {place.model_id} went from {exponent} to {second.raw(name)}")
    return judged(mistakes, f"{count} scale factors")


def scales_in_use(image: ModelImage) -> set[str]:
    """Names of the scale factors that implemented points refer to."""
    scales = (image.model.scale_of(p) for p in image.model.points.values() if p.sf and image.implements(p.name))
    return {scale.name for scale in scales if isinstance(scale, Point)}
