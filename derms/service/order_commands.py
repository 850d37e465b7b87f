"""Commands of people to a running gateway: tags, modes, locks, values by hand, and why something is not possible.

They speak to its socket alone, and load nothing else of the site; here are their parsers, which load no library.
Powers are in kW.
"""

import argparse
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

UNITS_S: Mapping[str, float] = {"s": 1.0, "min": 60.0, "h": 3600.0}
HOUR_S = 3600.0
LEVELS = ("device", "group", "feeder")
KINDS = (
    *("caution", "control-inhibit", "automatic-control-inhibit", "alarm-inhibit"),
    *("scan-inhibit", "clearance"),
)
MODES = ("off", "shadow", "advise", "auto")
QUANTITIES = ("p_set", "p_limit")
COLUMNS = ("p_w", "q_var", "v_pu", "soc_frac")
"""The words of the enumerations, without what it takes to load them."""


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add all commands of this module to those of `derms`."""
    _add_tag(_group(commands, "tag", "hang, take off and list tags"))
    _add_mode(_group(commands, "mode", "show and set modes, approve a plan where the mode is advise"))
    lock = _group(commands, "lock", "keep other people's commands out of some devices, and let them in again")
    take = _verb(lock, "take", "lock", "keep other people's commands out", scope=True)
    take.add_argument("--for", dest="hold_s", type=seconds, default=HOUR_S, metavar="TIME", help="such as 30min or 2h")
    _verb(lock, "give-back", "unlock", "let other people's commands in again", scope=True)
    _add_set(commands)
    why = _verb(
        commands, "why", "why", "say why devices cannot be commanded, and why plans do not reach them", scope=True
    )
    _add_value(why)
    _verb(
        commands, "show", "show", "who has each device, tags, modes, stops, what loss of control would do", scope=True
    )
    _add_desk(_group(commands, "desk", "what the fleet could do, and what the dispatcher asks of it"))
    _add_substitute(commands)


def _group(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, text: str) -> Any:
    parser = commands.add_parser(name, help=text, description=text.capitalize() + ".")
    return parser.add_subparsers(dest="action", required=True)


def _verb(commands: Any, name: str, action: str, text: str, *, scope: bool = False) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text.capitalize() + ".")
    parser.add_argument("-c", "--config", type=Path, required=True, metavar="SITE.TOML", help="the site file")
    parser.add_argument("--json", action="store_true", help="print for programs: one JSON object")
    if scope:
        which = parser.add_mutually_exclusive_group(required=name != "show")
        for level in LEVELS:
            which.add_argument(f"--{level}", metavar="ID", help=f"this {level}")
        which.add_argument("--all", action="store_true", help="every device")
    parser.set_defaults(run=partial(_run, action))
    return parser


def _add_tag(tag: Any) -> None:
    hang = _verb(tag, "hang", "hang", "hang a tag", scope=True)
    hang.add_argument("kind", choices=KINDS)
    hang.add_argument("--text", required=True, help="what it is there for")
    off = _verb(tag, "off", "take_off", "take a tag off")
    off.add_argument("number", type=int)
    _verb(tag, "list", "tags", "list all tags")


def _add_mode(mode: Any) -> None:
    put = _verb(mode, "set", "set_mode", "put devices into another mode", scope=True)
    put.add_argument("mode", choices=MODES)
    put.add_argument("--why", default="", help="what for")
    approve = _verb(mode, "approve", "approve", "let a plan go out where the mode is advise")
    approve.add_argument("plan", type=int, metavar="PLAN", help="the number of the plan that is offered")
    _verb(mode, "list", "modes", "list the modes, and what scorecards show")


def _add_set(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "set a value by hand: selected, shown, confirmed, then operated; or give it up with --release"
    put = _verb(commands, "set", "set", text, scope=True)
    _add_value(put)
    put.add_argument("--release", action="store_true", help="give up what people have set")
    put.add_argument("--yes", action="store_true", help="do not ask before it goes out")


def _add_desk(desk: Any) -> None:
    _verb(desk, "show", "show_desk", "show what is asked of the fleet, and what it could do beside its plan")
    hold = _verb(desk, "hold", "hold", "have the batteries of a feeder hold a power together")
    hold.add_argument("--kw", type=float, required=True, help="of all together, + injects")
    emergency = _verb(desk, "emergency", "emergency", "have the batteries of a feeder give all that limits allow")
    for verb, usual in ((hold, "1h"), (emergency, "30min")):
        verb.add_argument("--feeder", required=True, metavar="ID")
        verb.add_argument("--for", dest="hold_s", type=seconds, default=seconds(usual), metavar="TIME", help=usual)
    _verb(desk, "return", "return_to_schedule", "return to schedule: ask nothing of the fleet any more")


def _add_substitute(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "put a value in the place of a measured one; or have the measured one again with --release"
    put = _verb(commands, "substitute", "substitute", text)
    put.add_argument("--device", required=True, metavar="ID")
    put.add_argument("--column", required=True, choices=COLUMNS)
    put.add_argument("--value", type=float, help="in the unit at the end of the column's name")
    put.add_argument("--text", help="why")
    put.add_argument("--for", dest="hold_s", type=seconds, default=HOUR_S, metavar="TIME", help="such as 30min or 2h")
    put.add_argument("--release", action="store_true", help="take back the value in the place of the measured one")


def _add_value(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quantity", choices=QUANTITIES, default=QUANTITIES[0], help="p_set or p_limit")
    parser.add_argument("--kw", type=float, help="for each device, + injects")
    parser.add_argument(
        "--for", dest="hold_s", type=seconds, default=HOUR_S, metavar="TIME", help="such as 30min or 2h"
    )


def seconds(text: str) -> float:
    """A duration such as 90s, 30min or 2h [s]."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h)", text.strip())
    if not found:
        raise argparse.ArgumentTypeError(f"'{text}' is no time: give a number with s, min or h")
    return float(found[1]) * UNITS_S[found[2]]


def _run(action: str, options: argparse.Namespace) -> int:
    from derms.service import order_actions

    return order_actions.run(action, options)
