"""What the commands of people do: they ask a running gateway over its socket, and say what came back."""

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from derms.control.modes import ControlMode
from derms.domain.dispatch import Quantity
from derms.domain.refusal import Reason, Refused
from derms.domain.scope import EVERYTHING, Level, Scope
from derms.domain.tags import TagKind
from derms.errors import ConfigError, LinkError
from derms.link.desk import AskFleet, ReturnToSchedule, ShowDesk, ShownDesk
from derms.link.local import call
from derms.link.orders import (
    ApprovePlan,
    AskWhy,
    CancelCommand,
    CommandSelected,
    GiveBackLock,
    HangTag,
    OperateCommand,
    PutSubstitute,
    RemoveSubstitute,
    SelectCommand,
    SetMode,
    Show,
    Shown,
    TakeLock,
    TakeOffTag,
    WhyNot,
)
from derms.service.exit_status import FAILED, OK, WRONG_INPUT, refused_status
from derms.service.headroom_text import desk_lines
from derms.service.order_texts import modes_text, shown_text, why_text
from derms.service.storage_path import socket_of

ANSWER_S = 10.0
"""For one answer of the gateway."""


def run(action: str, options: argparse.Namespace) -> int:
    """Run a command by its name in ACTIONS; what keeps it from the gateway is one line."""
    try:
        return ACTIONS[action](options)
    except ConfigError as error:
        print("\n".join(str(problem) for problem in error.problems), file=sys.stderr)
        return WRONG_INPUT
    except LinkError as error:
        print(f"derms: {error}", file=sys.stderr)
        return FAILED


def _scope(options: argparse.Namespace) -> Scope:
    given = ((level, getattr(options, level)) for level in (Level.DEVICE, Level.GROUP, Level.FEEDER))
    return next((Scope(level, name) for level, name in given if name), EVERYTHING)


def _ask(options: argparse.Namespace, request: object) -> object:
    return call(socket_of(options.config), request, object, within_s=ANSWER_S)


def _changed(options: argparse.Namespace, request: object) -> int:
    """Ask for a change, and say what became of it."""
    return _said(options, _ask(options, request))


def _said(options: argparse.Namespace, reply: object) -> int:
    if options.json:
        print(json.dumps({"ok": not isinstance(reply, Refused), **plain(reply)}, allow_nan=False))
    elif isinstance(reply, Refused):
        print("refused:", *_lines(reply.reasons), sep="\n", file=sys.stderr)
    else:
        print(getattr(reply, "text", reply))
    return refused_status(reply) if isinstance(reply, Refused) else OK


def _lines(reasons: tuple[Reason, ...]) -> list[str]:
    return [f"  {reason.by}: {reason.text}" for reason in reasons]


def plain(value: object) -> Any:
    """A reply as JSON knows it; what is not finite is null."""
    match value:
        case Enum():
            return value.value
        case float():
            return value if math.isfinite(value) else None
        case datetime():
            return value.isoformat()
        case dict():
            return {str(key): plain(item) for key, item in value.items()}
        case tuple() | list():
            return [plain(item) for item in value]
        case _ if is_dataclass(value) and not isinstance(value, type):
            return plain(asdict(value))
    return value


def _hang(options: argparse.Namespace) -> int:
    kind = next(kind for kind in TagKind if kind.replace(" ", "-") == options.kind)
    return _changed(options, HangTag(kind, _scope(options), options.text))


def _take_off(options: argparse.Namespace) -> int:
    return _changed(options, TakeOffTag(options.number))


def _lock(options: argparse.Namespace) -> int:
    return _changed(options, TakeLock(_scope(options), options.hold_s))


def _unlock(options: argparse.Namespace) -> int:
    return _changed(options, GiveBackLock(_scope(options)))


def _set_mode(options: argparse.Namespace) -> int:
    return _changed(options, SetMode(_scope(options), ControlMode(options.mode), options.why))


def _approve(options: argparse.Namespace) -> int:
    return _changed(options, ApprovePlan(options.plan))


def _substitute(options: argparse.Namespace) -> int:
    """Put a value in the place of a measured one, or have the measured one again."""
    given = (options.value is not None, options.text is not None)
    if any(given) if options.release else not all(given):
        print("derms: give --value and --text, or --release alone", file=sys.stderr)
        return WRONG_INPUT
    device, column = options.device, options.column
    if options.release:
        return _changed(options, RemoveSubstitute(device, column))
    return _changed(options, PutSubstitute(device, column, options.value, options.text, options.hold_s))


def _hold(options: argparse.Namespace) -> int:
    return _changed(options, AskFleet(options.feeder, _value_w(options), options.hold_s))


def _emergency(options: argparse.Namespace) -> int:
    return _changed(options, AskFleet(options.feeder, None, options.hold_s))


def _return_to_schedule(options: argparse.Namespace) -> int:
    return _changed(options, ReturnToSchedule())


def _show_desk(options: argparse.Namespace) -> int:
    reply = _ask(options, ShowDesk())
    if options.json or not isinstance(reply, ShownDesk):
        return _said(options, reply)
    print("\n".join(desk_lines(reply)))
    return OK


def _value_w(options: argparse.Namespace) -> float | None:
    return None if options.kw is None else 1e3 * float(options.kw)


def _set(options: argparse.Namespace) -> int:
    """Select, say what to know before going on, and operate when a person says so."""
    if options.release == (options.kw is not None):
        print("derms: give a value with --kw, or --release", file=sys.stderr)
        return WRONG_INPUT
    quantity = Quantity(options.quantity)
    selected = _ask(options, SelectCommand(_scope(options), quantity, _value_w(options), options.hold_s))
    if not isinstance(selected, CommandSelected):
        return _said(options, selected)
    what = "is given up" if options.release else f"{options.kw:g} kW for {options.hold_s:.0f} s"
    if not options.json:
        print(f"selected: {quantity} of {_scope(options)}, {selected.devices} devices: {what}")
        print(*_lines(selected.notes), sep="\n", end="\n" if selected.notes else "")
    if not options.yes and not _confirmed(selected):
        _ask(options, CancelCommand(selected.number))
        print("derms: nothing was sent", file=sys.stderr)
        return FAILED
    return _changed(options, OperateCommand(selected.number))


def _confirmed(selected: CommandSelected) -> bool:
    """Whether a person at a terminal says yes; nobody there is no."""
    if not sys.stdin.isatty():
        return False
    print(f"operate within {selected.within_s:.0f} s? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _why(options: argparse.Namespace) -> int:
    asked = AskWhy(_scope(options), Quantity(options.quantity), _value_w(options), options.hold_s)
    reply = _ask(options, asked)
    if options.json or not isinstance(reply, WhyNot):
        return _said(options, reply)
    print(why_text(reply))
    return OK


def _shown(options: argparse.Namespace, part: Callable[[Shown], str], *fields: str) -> int:
    """Show how things stand, or for programs some fields of it; all without one."""
    reply = _ask(options, Show(_scope(options) if hasattr(options, "all") else EVERYTHING))
    if not isinstance(reply, Shown):
        return _said(options, reply)
    if options.json:
        found = {field: plain(getattr(reply, field)) for field in fields} or plain(reply)
        print(json.dumps(found, allow_nan=False))
    else:
        print(part(reply))
    return OK


def _tags(options: argparse.Namespace) -> int:
    return _shown(options, lambda it: "\n".join(map(str, it.tags)) or "no tag hangs", "tags")


def _modes(options: argparse.Namespace) -> int:
    return _shown(options, modes_text, "modes", "scorecards")


def _show(options: argparse.Namespace) -> int:
    return _shown(options, shown_text)


ACTIONS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "hang": _hang,
    "take_off": _take_off,
    "tags": _tags,
    "set_mode": _set_mode,
    "approve": _approve,
    "modes": _modes,
    "lock": _lock,
    "unlock": _unlock,
    "set": _set,
    "why": _why,
    "show": _show,
    "substitute": _substitute,
    "show_desk": _show_desk,
    "hold": _hold,
    "emergency": _emergency,
    "return_to_schedule": _return_to_schedule,
}
"""By the name that the parser gives each."""
