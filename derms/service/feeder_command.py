"""`derms feeder`: check a feeder package, make a manifest for a bare circuit, draw the one-line."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from math import isfinite
from pathlib import Path

import numpy as np

from derms.domain.grid import FeederPackage
from derms.errors import ConfigError, GridError, Problem
from derms.grid.engine import Engine, PowerFlow
from derms.grid.golden import GOLDEN, deviations
from derms.grid.look_ahead import Violation, violations
from derms.grid.one_line import draw
from derms.grid.open import open_engine
from derms.grid.topology import islands
from derms.service import plugins

OK = 0
PICTURES = (".png", ".svg", ".pdf")


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments ask for; returns the exit status. Raises ConfigError with every mistake of the files."""
    options = _parser().parse_args(arguments)
    status: int = options.work(options)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="derms feeder", description="Check, import and draw feeder packages.")
    actions = parser.add_subparsers(dest="action", required=True)
    for name, work, text in (
        ("check", _check, "resolve every name, phase and voltage of a feeder package, and solve it"),
        ("show", _show, "draw the one-line of a feeder, coloured by voltage"),
    ):
        action = actions.add_parser(name, help=text, description=text.capitalize() + ".")
        action.add_argument("feeder", metavar="PATH", help="id of a packaged feeder, or a folder with a manifest.toml")
        action.add_argument("--json", action="store_true", help="print for programs: one JSON object")
        action.add_argument(
            "--load", type=_factor, default=1.0, metavar="X", help="all loads times this factor (default 1)"
        )
        action.set_defaults(work=work)
        if name == "show":
            action.add_argument(
                "-o", "--out", type=_picture, metavar="FILE", help="PNG, SVG or PDF (default: ID.png here)"
            )
    text = "Write a manifest skeleton beside a bare .dss circuit."
    action = actions.add_parser("import", help="make a manifest skeleton for a bare circuit", description=text)
    action.add_argument("circuit", type=Path, metavar="CIRCUIT.DSS", help="the circuit's master file")
    action.add_argument("--json", action="store_true", help="print for programs: one JSON object")
    action.set_defaults(work=_import)
    return parser


def _factor(text: str) -> float:
    """A factor on all loads, as an argument."""
    value = float(text)
    if not (isfinite(value) and value >= 0.0):
        raise argparse.ArgumentTypeError(f"{text}: give a number from 0 on")
    return value


def _picture(text: str) -> Path:
    """A picture's file, as an argument."""
    path = Path(text)
    if path.suffix.lower() not in PICTURES:
        raise argparse.ArgumentTypeError(f"{text}: give a file that ends in {', '.join(PICTURES)}")
    return path


def _solved(options: argparse.Namespace) -> tuple[FeederPackage, Engine, PowerFlow]:
    """A package, its engine, and the solution of its circuit as it stands; ConfigError for what is wrong."""
    package = plugins.feeder_source()(options.feeder)
    try:
        engine = open_engine(package)
        layout = engine.layout
        engine.set_loads(options.load * layout.nominal_load_w, options.load * layout.nominal_load_var)
        return package, engine, engine.solve()
    except GridError as error:
        text = str(error).removeprefix(f"{package.id}: ")
        right = "mend the circuit where OpenDSS names it, or the value that it starts from"
        raise ConfigError([Problem(package.circuit.name, "circuit", text, right)]) from error


def _check(options: argparse.Namespace) -> int:
    package, engine, flow = _solved(options)
    found = _facts(package, engine, flow)
    wrong = violations(engine, flow)
    apart = deviations(package, engine, flow) if options.load == 1.0 else []
    if options.json:
        rows = [{"kind": v.kind, "where": v.where, "value": v.value, "limit": v.limit} for v in wrong]
        print(json.dumps({"ok": not apart, **found, "violations": rows, "not_as_golden": apart}))
    else:
        print(f"{package.id}: good" if not apart else f"{package.id}: not as its golden results")
        for name, value in found.items():
            print(f"  {name.replace('_', ' ')}: {value}")
        for line in (*_summary(wrong), *apart):
            print(f"  {line}")
    engine.close()
    return OK if not apart else 1


def _facts(package: FeederPackage, engine: Engine, flow: PowerFlow) -> dict[str, object]:
    layout = engine.layout
    alive = flow.v_pu > 1e-3
    return {
        "circuit": package.circuit.name,
        "text": "of this product" if package.own else "from elsewhere, loaded in a confined process",
        "sha256": package.digest,
        "golden": "compared" if (package.circuit.with_name(GOLDEN)).is_file() else "none there",
        "nodes": len(layout.nodes),
        "loads": len(layout.loads),
        "der": len(layout.ders),
        "switches": len(layout.switches),
        "regulators": len(layout.regulators),
        "capacitors": len(layout.capacitors),
        "head_kw": round(float(flow.head_w.sum()) / 1e3, 1),
        "losses_kw": round(engine.losses_w() / 1e3, 1),
        "v_min_pu": round(float(flow.v_pu[alive].min()), 4),
        "v_max_pu": round(float(flow.v_pu[alive].max()), 4),
        "buses_without_source": sum(map(len, islands(engine))),
    }


def _summary(wrong: Sequence[Violation]) -> list[str]:
    counts = Counter(violation.kind for violation in wrong)
    lines = []
    for kind, count in counts.items():
        worst = max((v for v in wrong if v.kind is kind), key=lambda violation: violation.excess)
        lines.append(f"{kind}: {count}, worst {worst.where} at {worst.value:.4g}, limit {worst.limit:.4g}")
    return lines or ["no limit is violated"]


def _show(options: argparse.Namespace) -> int:
    package, engine, flow = _solved(options)
    path: Path = options.out or Path(f"{package.id}.png")
    dead = frozenset(bus for island in islands(engine) for bus in island)
    title = package.id if options.load == 1.0 else f"{package.id} at {options.load:g} of its loads"
    draw(engine.layout, flow.v_pu, path, title=title, source_bus=package.source_bus, dead=dead)
    outside = int(np.count_nonzero(engine.layout.violating(flow.v_pu)))
    if options.json:
        print(json.dumps({"ok": True, "picture": str(path), "points_outside": outside}))
    else:
        print(f"{path}: {len(engine.layout.buses)} buses, {outside} voltage points outside their range")
    engine.close()
    return OK


def _import(options: argparse.Namespace) -> int:
    circuit: Path = options.circuit
    manifest = circuit.with_name("manifest.toml")
    text = plugins.feeder_skeleton()(circuit)
    try:
        with manifest.open("x", encoding="utf8", newline="\n") as file:
            file.write(text)
    except FileExistsError:
        right = "move it away first: nothing is overwritten"
        raise ConfigError([Problem(str(manifest), "file", "there is one already", right)]) from None
    if options.json:
        print(json.dumps({"ok": True, "manifest": str(manifest)}))
    else:
        print(f"{manifest}: written; look through it, then: derms feeder check {circuit.parent}", file=sys.stdout)
    return OK
