"""`derms stop`: gives a stop and follows it, tells of those that are latched, and takes the steps of their release.

It speaks to the gateway alone, over its socket, and loads nothing of the site but where that is. It ends with 0 when
every device is confirmed, on its own way there, or need not be, and with 1 when some are unknown.
"""

import argparse
import json
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from derms.control.stop_report import NOT_ISOLATION, Preview, Progress
from derms.control.stopping import WAYS, How
from derms.domain.refusal import Refused
from derms.domain.scope import EVERYTHING, Level, Scope
from derms.errors import ConfigError, LinkError
from derms.link.local import call
from derms.link.stops import StopHurry, StopPreview, StopRelease, StopReply, StopRequest, StopStatus
from derms.service.exit_status import FAILED, INTERRUPTED, OK, WRONG_INPUT, refused_status
from derms.service.storage_path import socket_of

WITHIN_S = 5.0
"""For the gateway to answer."""
AGAIN_S = 0.25
"""Between two questions how far a stop has come."""
TRIES = 120
"""Without an answer, after which it is not asked any more."""


class _Refused(Exception):
    """The gateway refused, and why."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused)
        self.refused = refused


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `stop` to the commands."""
    text = "stop devices: release, freeze, stop export or charging, cease to energize; release a stop"
    ways = "; ".join(f"{how}: {way.text}" for how, way in WAYS.items())
    parser = commands.add_parser("stop", help=text, description=f"{text.capitalize()}.", epilog=NOT_ISOLATION)
    act = parser.add_mutually_exclusive_group(required=True)
    act.add_argument("--how", type=How, choices=list(How), metavar="HOW", help=ways)
    act.add_argument("--status", action="store_true", help="tell the stops that are latched")
    act.add_argument("--hurry", type=int, metavar="N", help="have all stages of stop N go out now")
    act.add_argument("--release", type=int, metavar="N", help="take one of the two steps that release stop N")
    scope = parser.add_mutually_exclusive_group()
    for level in (Level.FEEDER, Level.GROUP, Level.DEVICE):
        scope.add_argument(f"--{level}", metavar=level.upper(), help=f"stop what is under this {level}")
    scope.add_argument("--all", action="store_true", help="stop everything")
    parser.add_argument("--immediate", action="store_true", help="all stages at once")
    parser.add_argument("--yes", action="store_true", help="do not ask before stopping")
    parser.add_argument("--remote", action="store_true", help="release as one who is not in the control room")
    parser.add_argument("--break-glass", metavar="WHY", default="", help="release alone, and say why")
    parser.add_argument("-c", "--config", type=Path, required=True, metavar="SITE.TOML", help="the site file")
    parser.add_argument("--json", action="store_true", help="print for programs: one JSON object")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Do what was asked; the exit status."""
    try:
        socket = socket_of(options.config)
    except ConfigError as error:
        return _failed(options, [str(problem) for problem in error.problems], WRONG_INPUT)
    try:
        if options.how is not None:
            return _stop(socket, options)
        if options.release is not None:
            return _release(socket, options)
        if options.hurry is not None:
            _ask(socket, StopHurry(options.hurry))
            return _follow(socket, options.hurry, options)
        return _tell_all(_ask(socket, StopStatus()).stops, options)
    except _Refused as error:
        return _failed(options, [reason.text for reason in error.refused.reasons], refused_status(error.refused))
    except LinkError as error:
        _say(options, {"ok": False, "problems": [str(error)]}, [str(error)])
        return FAILED


def _stop(socket: Path, options: argparse.Namespace) -> int:
    scope = _scope(options)
    if scope is None:
        return _failed(options, ["what is to be stopped? --feeder, --group, --device or --all"], WRONG_INPUT)
    if not options.yes:
        preview = _ask(socket, StopPreview(options.how, scope)).preview
        if preview is None or not _agreed(preview):
            return _failed(options, ["nothing was stopped"], FAILED)
    request = StopRequest(uuid4().hex, options.how, scope, options.immediate)
    try:
        number = _ask(socket, request, again=True).stops[0].number
    except KeyboardInterrupt:
        text = f"interrupted before the gateway answered: the stop may stand; see it: {_words('--status', options)}"
        return _failed(options, [text], INTERRUPTED)
    return _follow(socket, number, options)


def _words(act: str, options: argparse.Namespace) -> str:
    return f"derms stop {act} -c {shlex.quote(str(options.config))}"


def _scope(options: argparse.Namespace) -> Scope | None:
    for level in (Level.FEEDER, Level.GROUP, Level.DEVICE):
        name = getattr(options, level.value)
        if name:
            return Scope(level, name)
    return EVERYTHING if options.all else None


def _agreed(preview: Preview) -> bool:
    """Show what will be, and ask; somebody who cannot be asked has not agreed."""
    print(preview, file=sys.stderr)
    print("stop? [yes/no] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _follow(socket: Path, number: int, options: argparse.Namespace) -> int:
    """Ask until each device is confirmed or known, and tell it; Ctrl-C ends the asking, and not the stop."""
    try:
        return _followed(socket, number, options)
    except KeyboardInterrupt:
        lines = [
            f"interrupted: stop {number} stands, is latched, and goes on without this command",
            f"see it: {_words('--status', options)}",
            f"release it, by two people: {_words(f'--release {number}', options)}",
        ]
        return _failed(options, lines, INTERRUPTED, stop=number, latched=True)


def _followed(socket: Path, number: int, options: argparse.Namespace) -> int:
    shown = ""
    while True:
        found = _ask(socket, StopStatus(number), again=True).stops[0]
        line = str(_brief(found))
        if line != shown and not options.json:
            print(line, flush=True)
            shown = line
        if found.tally.settled:
            _tell(found, options)
            return FAILED if found.tally.unknown else OK
        time.sleep(AGAIN_S)


def _brief(found: Progress) -> Progress:
    """Without the names of unknown devices, which may be many while it is under way."""
    return found if found.tally.settled else replace(found, tally=replace(found.tally, unknown=()))


def _tell(found: Progress, options: argparse.Namespace) -> None:
    _say(options, _as_json(found), [*(f"  {line}" for line in found.why), NOT_ISOLATION])


def _tell_all(stops: tuple[Progress, ...], options: argparse.Namespace) -> int:
    latched = [found for found in stops if found.latched]
    lines = [line for found in latched for line in (str(found), *(f"  {why}" for why in found.why))]
    lines += [str(found) for found in stops if not found.latched]
    _say(options, {"ok": True, "stops": [_as_json(found) for found in stops]}, lines or ["no stop is latched"])
    return FAILED if any(found.tally.unknown for found in latched) else OK


def _release(socket: Path, options: argparse.Namespace) -> int:
    text = _ask(socket, StopRelease(options.release, options.remote, options.break_glass)).text
    _say(options, {"ok": True, "text": text}, [text])
    return OK


def _as_json(found: Progress) -> dict[str, Any]:
    tally = found.tally
    return {
        "ok": not tally.unknown,
        "stop": found.number,
        "how": found.how.value,
        "scope": str(found.scope),
        "author": found.author,
        "latched": found.latched,
        "approved_by": found.approved_by,
        "to_be_let_in": found.kept_out,
        "devices": tally.total,
        "confirmed": tally.confirmed,
        "under_way": tally.waiting,
        "reverting": tally.reverting,
        "within_s": tally.within_s,
        "unknown": list(tally.unknown),
        "why": list(found.why),
        "isolation": False,
    }


def _ask(socket: Path, request: object, *, again: bool = False) -> StopReply:
    """The gateway's reply; asked `again` for a while where that does no harm. Raises LinkError, or _Refused."""
    left = TRIES if again else 1
    while True:
        left -= 1
        try:
            reply = call(socket, request, StopReply, within_s=WITHIN_S)
        except LinkError:
            if left <= 0:
                raise
            time.sleep(AGAIN_S)
        else:
            if reply.refused:
                raise _Refused(reply.refused)
            return reply


def _say(options: argparse.Namespace, found: dict[str, Any], lines: list[str]) -> None:
    print(json.dumps(found)) if options.json else print("\n".join(lines))


def _failed(options: argparse.Namespace, problems: list[str], status: int, **known: object) -> int:
    """Tell why it ends with a status that is not 0, and for programs what is known else."""
    if options.json:
        print(json.dumps({"ok": False, "problems": problems, **known}))
    else:
        print("\n".join(problems), file=sys.stderr)
    return status
