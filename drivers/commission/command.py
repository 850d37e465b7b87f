"""`derms device`: scan a device, and test whether it keeps to SunSpec and lets go by itself."""

import argparse
import asyncio
import io
import json
import math
import random
import sys
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from derms.domain.der import Endpoint, Transport
from derms.errors import ConfigError, FieldError
from derms.ports import Clock, FieldOptions
from drivers.commission import report
from drivers.commission.cases import CASES, Outcome, certify, run_cases
from drivers.commission.hints import hint
from drivers.commission.raw import RawLink
from drivers.commission.subject import Subject
from drivers.commission.survey import SUNSPEC, has_models, survey
from drivers.modbus.session import Sessions
from drivers.registry import REGISTRY, drivers

Work = Callable[[Clock, random.Random], Coroutine[Any, Any, int]]

OK, FAILED, WRONG_INPUT = 0, 1, 2
PORTS = {Transport.TCP: 502, Transport.RTU_TCP: 502, Transport.TLS: 802, Transport.SERIAL: 9600}
"""Port, or speed of a serial line [baud], when none is given."""
UNITS_MAX = 255
PORT_MAX = 65535
TIMEOUT_MIN_S, TIMEOUT_MAX_S = 0.1, 60.0
BACKOFF_S = 0.2
"""A device on the test bench is tried again soon [s]."""


def command(arguments: Sequence[str]) -> Work:
    """The work that some arguments ask for; leaves with status 2 for arguments that make no sense."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character still gets the rest
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.port is not None and options.port > PORT_MAX and options.transport is not Transport.SERIAL:
        parser.error(f"argument --port: {_no_port(str(options.port))}")
    work: Work = partial(options.work, options)
    return work


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="derms device", description="Look at one device, and test it.")
    actions = parser.add_subparsers(dest="action", required=True)
    scan = actions.add_parser("scan", help="say what a device is, read only", description="Say what a device is.")
    units = scan.add_mutually_exclusive_group()
    units.add_argument("--unit", type=_units, dest="units", metavar="N", help="Modbus unit (default: the profile's)")
    units.add_argument("--units", type=_units, metavar="A-B", help="a range of units, one after the other")
    scan.set_defaults(work=_scan)
    test = actions.add_parser(
        "test",
        help="run the SunSpec conformance cases",
        description="Run the SunSpec conformance cases. The JUnit file comes to lie in DIR as "
        "conformance-SERIAL.xml and, with --write, the certificate as DIR/certificates/SERIAL.json.",
    )
    test.add_argument("--unit", type=_units, dest="units", required=True, metavar="N", help="Modbus unit")
    test.add_argument("--write", action="store_true", help="also run the cases that write; all is put back")
    test.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="where results go (default: here)")
    test.set_defaults(work=_test)
    for action in (scan, test):
        action.add_argument(
            "host", type=_host, metavar="HOST", help="IP address or host name; of a serial line the port"
        )
        action.add_argument("--profile", default=SUNSPEC, metavar="NAME", help="driver to look with (default sunspec)")
        action.add_argument("--port", type=_port, metavar="PORT", help="TCP port, or baud rate of a serial line")
        action.add_argument("--transport", type=Transport, choices=list(Transport), default=Transport.TCP)
        action.add_argument(
            "--timeout", type=_timeout, default=2.0, metavar="S", help="longest wait for an answer (0.1-60)"
        )
        for name, text in (("ca", "authority of devices"), ("certificate", "our certificate"), ("key", "its key")):
            action.add_argument(f"--{name}", type=Path, metavar="PEM", help=f"TLS: {text}")
        action.add_argument("--json", action="store_true", help="print for programs: one JSON object")
    return parser


def _units(text: str) -> range:
    """A unit `7` or a range of them `1-10`."""
    first, dash, last = text.partition("-")
    if not (first.isdecimal() and (last.isdecimal() if dash else True)):
        raise argparse.ArgumentTypeError(f"'{text}' is not a unit like 1, nor a range like 1-10")
    units = range(int(first), int(last or first) + 1)
    if not units or units[-1] > UNITS_MAX:
        raise argparse.ArgumentTypeError(f"'{text}' is empty or goes beyond {UNITS_MAX}")
    return units


def _port(text: str) -> int:
    """A TCP port, or the speed of a serial line."""
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(_no_port(text))
    return int(text)


def _no_port(text: str) -> str:
    return f"'{text}' is no port; give a whole number from 1 to {PORT_MAX}"


def _timeout(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not TIMEOUT_MIN_S <= seconds <= TIMEOUT_MAX_S:
        wanted = f"give seconds from {TIMEOUT_MIN_S:g} to {TIMEOUT_MAX_S:g}"
        raise argparse.ArgumentTypeError(f"'{text}' is no such time; {wanted}")
    return seconds


def _host(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty; give an IP address, a host name or a serial port")
    return text.strip()


def _endpoint(options: argparse.Namespace, unit: int) -> Endpoint:
    port = PORTS[options.transport] if options.port is None else options.port
    return Endpoint(options.host, port, unit, options.transport)


def _field(options: argparse.Namespace, *, read_only: bool) -> FieldOptions:
    return FieldOptions(
        timeout_s=options.timeout,
        connect_timeout_s=options.timeout,
        read_only=read_only,
        backoff_min_s=BACKOFF_S,
        backoff_max_s=BACKOFF_S,
        tls_ca=options.ca,
        tls_certificate=options.certificate,
        tls_key=options.key,
    )


async def _scan(options: argparse.Namespace, clock: Clock, chance: random.Random) -> int:
    """Scan a unit or some of them; fine when anything was found."""
    known = drivers().names
    if options.profile not in known:
        return _refuse(options, f"no driver '{options.profile}'; there are {', '.join(sorted(known))}")
    if lacking := _lacking(options):
        return _refuse(options, lacking)
    first = known[options.profile].unit
    units = options.units or range(first, first + 1)
    found: list[dict[str, Any]] = []
    for unit in units:
        endpoint = _endpoint(options, unit)
        try:
            seen = await survey(
                endpoint,
                profile=options.profile,
                options=_field(options, read_only=True),
                clock=clock,
                chance=chance,
            )
        except ConfigError as error:
            return _refuse(options, _unusable(error))
        except FieldError as error:
            found.append({"ok": False, "endpoint": str(endpoint), "error": _sentence(endpoint, error)})
            if not options.json:
                print(f"{endpoint}: {_sentence(endpoint, error)}", file=sys.stderr)
            continue
        found.append(report.survey_json(seen))
        if not options.json:
            print("\n".join(report.show_survey(seen)))
    if options.json:
        print(json.dumps(found[0] if len(units) == 1 else {"ok": any(d["ok"] for d in found), "devices": found}))
    return OK if any(device["ok"] for device in found) else FAILED


def _sentence(endpoint: Endpoint, error: FieldError) -> str:
    """An error without the endpoint, which is said before it."""
    return str(error).removeprefix(f"{endpoint}: ") + hint(error)


def _lacking(options: argparse.Namespace) -> str:
    """What TLS needs and is not given; empty where nothing is lacking."""
    files = {"--ca": options.ca, "--certificate": options.certificate, "--key": options.key}
    missing = [flag for flag, path in files.items() if path is None]
    if options.transport is not Transport.TLS or not missing:
        return ""
    return f"--transport tls needs the PEM files --ca, --certificate and --key; not given: {', '.join(missing)}"


def _unusable(error: ConfigError) -> str:
    """What is wrong with files that options name."""
    text = "; ".join(f"{problem.wrong}; {problem.right}" for problem in error.problems)
    for key in ("ca", "certificate", "key"):
        text = text.replace(f"tls_{key}", f"--{key}")
    return text


def _refuse(options: argparse.Namespace, text: str) -> int:
    if options.json:
        print(json.dumps({"ok": False, "error": text}))
    else:
        print(f"derms device: {text}", file=sys.stderr)
    return WRONG_INPUT


async def _test(options: argparse.Namespace, clock: Clock, chance: random.Random) -> int:
    """Run the cases on one unit, and keep what they found."""
    if len(options.units) != 1:
        return _refuse(options, "one unit is tested at a time")
    if options.profile not in drivers().names or not has_models(options.profile):
        return _refuse(options, f"'{options.profile}' is no driver of SunSpec devices, which the cases are about")
    if lacking := _lacking(options):
        return _refuse(options, lacking)
    try:
        report.prepare(options.out, proven=options.write)
    except OSError as error:
        wanted = "give a folder in which this user may write files"
        return _refuse(options, f"--out {options.out}: {error.strerror}; {wanted}")
    endpoint = _endpoint(options, options.units[0])
    try:
        subject = _subject(options, endpoint, clock, chance)
        await subject.discover()
    except ConfigError as error:
        return _refuse(options, _unusable(error))
    except FieldError as error:
        text = _sentence(endpoint, error)
        if options.json:
            print(json.dumps({"ok": False, "endpoint": str(endpoint), "error": text}))
        else:
            print(f"{endpoint}: {text}", file=sys.stderr)
        return FAILED
    if options.write:
        _announce(endpoint)
    try:
        return await _run(options, subject, clock)
    finally:
        subject.unit.disconnect()


def _announce(endpoint: Endpoint) -> None:
    """Say what is going to be written, before it is."""
    print(f"{endpoint}: these cases write to the device; everything is put back, also after Ctrl-C:", file=sys.stderr)
    for line in report.table([(case.name, case.does) for case in CASES if case.does]):
        print(f"  {line}", file=sys.stderr)


def _subject(options: argparse.Namespace, endpoint: Endpoint, clock: Clock, chance: random.Random) -> Subject:
    unit = Sessions(_field(options, read_only=not options.write), chance).unit(endpoint, REGISTRY[options.profile].link)
    dial = partial(RawLink.dial, endpoint.host, endpoint.port, unit=endpoint.unit, timeout_s=options.timeout)
    return Subject(
        unit,
        clock,
        asyncio.sleep,
        say=_progress,
        tell=_warn,
        dial=dial if endpoint.transport is Transport.TCP else None,
    )


def _progress(text: str) -> None:
    """One line that is overwritten, for those who sit before a terminal."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _warn(text: str) -> None:
    _progress("")
    print(text, file=sys.stderr, flush=True)


async def _run(options: argparse.Namespace, subject: Subject, clock: Clock) -> int:
    """Run the cases, show and keep what they found; a cancelled run ends as such after that."""
    outcome = await run_cases(subject, write=options.write)
    _progress("")
    certificate = certify(subject, outcome, now=clock.utc(), tool=f"derms {version('derms')}")
    if not options.json:
        print("\n".join(report.show_certificate(certificate)))
    for text in (ends := _ends(outcome)):
        _warn(text)
    paths: list[Path] = []
    unkept = ""
    try:
        paths = report.keep(options.out, certificate, proven=options.write and outcome.whole, broken=outcome.broken)
    except OSError as error:
        unkept = f"the result cannot be kept in {options.out}: {error}"
        _warn(f"derms device: {unkept}")
    good = outcome.good and not unkept
    if options.json:
        said = {} if good else {"error": "; ".join([*ends, *([unkept] if unkept else [])]) or "cases failed"}
        fields = json.loads(certificate.to_json())
        print(json.dumps({"ok": good, **said, **fields, "files": [str(path) for path in paths]}))
    elif paths:
        print("\n".join(f"written: {path}" for path in paths))
    if outcome.interrupted:
        raise asyncio.CancelledError
    return OK if good else FAILED


def _ends(outcome: Outcome) -> list[str]:
    """What must be known about a run that is not a whole one."""
    back = f"not put back: {outcome.left_behind}" if outcome.left_behind else "everything was put back"
    texts = []
    if outcome.interrupted:
        texts.append(f"interrupted in {outcome.interrupted}; {back}")
    if outcome.broken:
        texts.append(f"the device was lost in {outcome.broken}; {back}")
    if outcome.company:
        texts.append(f"no certificate, the test was not alone with the device: {outcome.company}")
    return texts
