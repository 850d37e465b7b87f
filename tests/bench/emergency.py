"""A stop of everything while much fails: how long until each device that can be reached is seen to be stopped.

1,000 simulated devices on loopback TCP, each with a connection and a latency of its own (50 to 200 ms for each answer),
of six makes that cease by 703, 715, 123, or a limit of zero. A tenth is silent: half of them from the beginning, half
from the moment of the command. The gateway is a process of its own with polls in flight; there is no brain, and where
its database should be is a folder. The stop is given through the gateway's socket, all stages at once; the time of each
device runs from before the request until the gateway has confirmed it by read-back, both on the monotonic clock. What
the devices truly do is asked of them at the end. Argument: devices. The last line is one JSON object.
"""

import asyncio
import json
import multiprocessing
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import uvloop

from derms.control.stop_report import Progress
from derms.control.stopping import How
from derms.domain.der import Device, DeviceKind, Endpoint, Fleet
from derms.domain.scope import EVERYTHING
from derms.errors import LinkError
from derms.link.local import SOCKET, call
from derms.link.messages import Condition, Inspect
from derms.link.stops import StopReply, StopRequest, StopStatus
from feeders.catalog import load
from hil.fault_kinds import Fault
from hil.files import write_fleet, write_site
from hil.load import TIMEZONE
from hil.server import Endpoint as Server
from hil.specimen import Specimen
from hil.world import PLACE_DEG
from tests.bench.stage import lift_limits

DEVICES, SHARE_SILENT = 1000, 10
"""One in ten is silent."""
LATENCY_S = (0.05, 0.2)
POLL_S = 2.0
FOUND_WITHIN_S, SETTLED_WITHIN_S = 180.0, 60.0
P99_MAX_S = 3.0
STILL_W = 100.0
"""Power below which a device of 10 kW is at a standstill."""
METER = "system"
FEEDER = Path(__file__).parents[2] / "feeders" / "ieee123"
PV, BATTERY = DeviceKind.PV, DeviceKind.BATTERY
MAKES: Sequence[tuple[DeviceKind, tuple[int, ...]]] = (
    *[(PV, (1, 701, 702, 703, 704))] * 3,
    *[(BATTERY, (1, 701, 702, 703, 704, 713))] * 3,
    (PV, (1, 103, 120, 121, 122, 123)),
    (BATTERY, (1, 103, 120, 121, 122, 123, 124)),
    (PV, (1, 701, 702, 704)),
    (BATTERY, (1, 701, 702, 704, 713, 715)),
)
"""Kind and models of each device in turn: the last two cease by limit and by 715."""


def is_silent(number: int) -> bool:
    """Spread over all makes."""
    return number // len(MAKES) % SHARE_SILENT == number % SHARE_SILENT


def goes_silent(number: int) -> bool:
    """Only from the command on."""
    return is_silent(number) and number // (len(MAKES) * SHARE_SILENT) % 2 == 1


def serve(there: Connection, count: int) -> None:
    """Process: the devices and a meter. Tells their ports; then `silence` silences more, `truth` tells powers [W]."""
    lift_limits()

    async def forever() -> None:
        rng = np.random.default_rng(1)
        specimens = [Specimen(MAKES[number % len(MAKES)][1], serial=f"E-{number}") for number in range(count)]
        servers = [Server({1: specimen}, rng=rng) for specimen in specimens]
        meter = Server({1: Specimen((1, 203), serial="E-meter")}, rng=rng)
        there.send([await server.start("127.0.0.1", 0) for server in (*servers, meter)])
        loop = asyncio.get_running_loop()
        for number, server in enumerate(servers):
            server.tap = partial(_obey, loop, specimens[number])
            quiet = is_silent(number) and not goes_silent(number)
            server.fault(*((Fault.HANG, None) if quiet else (Fault.DELAY, float(rng.uniform(*LATENCY_S)))))

        def asked() -> None:
            if there.recv() == "silence":
                for number in filter(goes_silent, range(count)):
                    servers[number].fault(Fault.HANG)
                there.send(True)
            else:
                there.send([_power_w(specimen) for specimen in specimens])

        loop.add_reader(there.fileno(), asked)
        await asyncio.Event().wait()

    with suppress(KeyboardInterrupt):
        uvloop.run(forever())


def _obey(loop: asyncio.AbstractEventLoop, specimen: Specimen, adu: bytes) -> None:
    """Have a device's power follow what is being written to it."""
    loop.call_later(0.05, specimen.tick, 0.05)


def _power_w(specimen: Specimen) -> float:
    """What a device truly gives now."""
    specimen.tick(0.1)
    return specimen.value("701.W" if 701 in specimen.models else "103.W")


@contextmanager
def devices(count: int) -> Iterator[tuple[list[int], Connection]]:
    """The devices in a process of their own; their ports and the line to them."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(there, count), daemon=True)
    process.start()
    try:
        yield here.recv(), here
    finally:
        process.terminate()
        process.join()


def device_id(number: int) -> str:
    return f"{MAKES[number % len(MAKES)][0].value}{number:04d}"


def write_all(folder: Path, ports: Sequence[int]) -> Path:
    """A site of these devices on a feeder that has a place for each; returns the site file."""
    package = load("ieee123")
    bus_of = {site.id: site.bus for site in package.sites}
    places = [(der, bus_of[der.site]) for der in package.ders]
    feeder = folder / "feeder"
    shutil.copytree(FEEDER, feeder)
    generators = dict(
        re.findall(r"^New Generator\.(\w+) (bus1=.*)$", (feeder / "master.dss").read_text(), re.MULTILINE)
    )
    rows, circuit, manifest = [], [""], [""]
    for number, port in enumerate(ports[:-1]):
        kind, name = MAKES[number % len(MAKES)][0], device_id(number)
        beside, bus = places[number % len(places)]
        battery = kind is BATTERY
        rows.append(_row(name, kind, port, bus, energy_wh=20e3 if battery else 0.0))
        circuit.append(f"New Generator.{name} {generators[beside.id]}")
        manifest.append(f'[[der]]\nid = "{name}"\nsite = "{beside.site}"\nelement = "Generator.{name}"')
        manifest.append(f'kind = "{kind.value}"\np_rated_kw = 10.0\ns_rated_kva = 10.0')
        manifest.append("energy_kwh = 20.0\n" if battery else "")
    rows.append(_row(METER, DeviceKind.SYSTEM_METER, ports[-1], package.source_bus))
    _append(feeder / "master.dss", circuit)
    _append(feeder / "manifest.toml", manifest)
    write_fleet(folder / "fleet.csv", Fleet(tuple(rows)))
    site = folder / "site.toml"
    write_site(site, feeder=str(feeder), mode="auto", place_deg=PLACE_DEG, timezone=TIMEZONE.key, net_load=METER)
    text = site.read_text().replace('history = "history.csv"\n', "")
    site.write_text(f"{text}\n[field]\npoll_s = {POLL_S}\nbackoff_max_s = 10\n")
    (folder / "data" / "historian.sqlite").mkdir(parents=True)
    return site


def _row(name: str, kind: DeviceKind, port: int, bus: str, *, energy_wh: float = 0.0) -> Device:
    rated = 0.0 if kind is DeviceKind.SYSTEM_METER else 10e3
    return Device(
        id=name,
        kind=kind,
        driver="sunspec",
        endpoint=Endpoint("127.0.0.1", port),
        bus=bus,
        p_rated_w=rated,
        s_rated_va=rated,
        energy_wh=energy_wh,
    )


def _append(path: Path, lines: Sequence[str]) -> None:
    with path.open("a") as file:
        file.write("\n".join(lines) + "\n")


@contextmanager
def gateway(site: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The gateway alone, in a process of its own, without a brain; the process and its socket."""
    log = site.with_name("gateway.log")
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "derms", "gateway", "-c", str(site)], stdout=out, stderr=subprocess.STDOUT
        )
        try:
            yield process, site.parent / "data" / SOCKET
        finally:
            process.kill()
            process.wait()


def wait_until_found(process: subprocess.Popen[bytes], socket: Path, reachable: int) -> None:
    """Until every device that answers has been read well."""
    good, end_s = -1, time.monotonic() + FOUND_WITHIN_S
    while good < reachable:
        if process.poll() is not None or time.monotonic() > end_s:
            print((socket.parent.parent / "gateway.log").read_text()[-2000:])
            raise SystemExit(f"only {good} of {reachable} devices were found")
        time.sleep(0.5)
        with suppress(LinkError):
            good = call(socket, Inspect(), Condition, within_s=5.0).good
    time.sleep(3.0 * POLL_S)


def stopped(socket: Path) -> tuple[float, Progress]:
    """Stop everything at once; when the command was given [s], and what the gateway says in the end of each device."""
    given_s = time.monotonic()
    request = StopRequest("emergency", How.CEASE, EVERYTHING, immediate=True)
    found = call(socket, request, StopReply, within_s=10.0).stops[0]
    while not found.tally.settled and time.monotonic() - given_s < SETTLED_WITHIN_S:
        time.sleep(0.25)
        found = call(socket, StopStatus(found.number), StopReply, within_s=10.0).stops[0]
        print(
            f"{time.monotonic() - given_s:5.2f} s: {found.tally.confirmed} confirmed, {found.tally.waiting} under way"
        )
    return given_s, call(socket, StopStatus(found.number, detail=True), StopReply, within_s=10.0).stops[0]


def measure(count: int, folder: Path) -> dict[str, object]:
    """Serve, find, silence, stop, compare with the truth."""
    with devices(count) as (ports, line), gateway(write_all(folder, ports)) as (process, socket):
        reachable = np.array([not is_silent(number) for number in range(count)])
        from_start = sum(is_silent(number) and not goes_silent(number) for number in range(count))
        wait_until_found(process, socket, count + 1 - from_start)
        line.send("silence")
        line.recv()
        given_s, found = stopped(socket)
        line.send("truth")
        still = np.abs(np.array(line.recv())) < STILL_W
    assert found.confirmed_s is not None
    at_s = dict(zip(found.devices, found.confirmed_s.tolist(), strict=True))
    took_s = np.array([at_s.get(device_id(number), np.nan) for number in range(count)]) - given_s
    confirmed = np.isfinite(took_s)
    print(found.tally.confirmed, "confirmed,", found.tally.reverting, "reverting,", len(found.tally.unknown), "unknown")
    if (confirmed & ~still).any():
        raise SystemExit(f"{int((confirmed & ~still).sum())} devices are confirmed and give power")
    took_s = np.where(confirmed, took_s, np.inf)[reachable]
    return {
        "bench": "emergency",
        "devices": count,
        "reachable": int(reachable.sum()),
        "confirmed": int((confirmed & reachable).sum()),
        "p50_s": round(float(np.percentile(took_s, 50)), 3),
        "p99_s": round(float(np.percentile(took_s, 99)), 3),
        "max_s": round(float(took_s.max()), 3),
    }


def main() -> None:
    """Measure, print; an exit status of 1 where it is too slow or not all are confirmed."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else DEVICES
    lift_limits()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(count, Path(folder))
    print(json.dumps(result))
    if result["confirmed"] != result["reachable"] or not float(str(result["p99_s"])) <= P99_MAX_S:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
