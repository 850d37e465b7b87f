"""Who else is at work on the device: functions in use that no test has enabled, and settings that change under one."""

from collections.abc import Mapping

from drivers.commission.subject import Subject
from drivers.commission.writing import QUIET

Settings = Mapping[tuple[int, str], int]
"""Registers by model and point."""


async def settings(subject: Subject) -> Settings:
    """What stands now in the functions that tests try."""
    found: dict[tuple[int, str], int] = {}
    for model_id in sorted({quiet.model_id for quiet in QUIET}):
        if subject.chain.find(model_id) is None:
            continue
        image = await subject.model(model_id)
        names = [name for quiet in QUIET if quiet.model_id == model_id for name in (quiet.enable, *quiet.points)]
        found |= {(model_id, name): image.whole(name) for name in names if image.implements(name)}
    return found


def in_use(found: Settings) -> str:
    """The functions that are on, which before a test are those of somebody else; empty when none is."""
    on = [quiet for quiet in QUIET if found.get((quiet.model_id, quiet.enable))]
    return ", ".join(f"{quiet.enable} of model {quiet.model_id}" for quiet in on)


def changed(before: Settings, now: Settings) -> str:
    """What is other than it was although no test has left it so; empty when nothing is."""
    texts = [
        f"{name} of model {model_id} went from {value} to {now.get((model_id, name), 0)}"
        for (model_id, name), value in before.items()
        if now.get((model_id, name), 0) != value
    ]
    return ", ".join(texts)
