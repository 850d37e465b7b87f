"""The processes of the service, each from its start to its end: gateway, brain, web."""

import asyncio
import os
import random
import signal
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from derms.domain.alarm import Event
from derms.errors import LinkError
from derms.field.ending import END_S
from derms.field.reconcile import FINISH_S, HAND_BACK_S
from derms.link.local import SOCKET, LocalLink, LocalServer, this_boot
from derms.scada.publish import WITHDRAW_S
from derms.service import plugins
from derms.service.cadence import run_scheduled
from derms.service.clock import SystemClock
from derms.service.config import Site
from derms.service.gateway_part import LAST_RECORDS_S, GatewayPart
from derms.service.leaving import ends_within, leave_within
from derms.service.notify import READY, STOPPING, Notifier
from derms.service.surroundings import Surroundings
from derms.service.words import event_line, say, status_line

PLAN_DEADLINE_S = 20.0
"""Wall-clock limit of one solve in real time."""
LEAVE_S = 1.0
"""When a process has ended: how long what is still in threads (a plan, a name that no server resolves) may hold up
the end of it."""
ASKING_S = 2.0
"""A brain that has not asked for records for so long is not there."""
RECORDS_S = 6.0
"""For closing the records: SQLite waits 5 s for whoever else has the database."""
GATEWAY_STOP_S = FINISH_S + END_S + HAND_BACK_S + END_S + LAST_RECORDS_S
BRAIN_STOP_S = END_S + WITHDRAW_S + LAST_RECORDS_S + RECORDS_S
"""The end of each process takes no longer, whatever devices, drivers and the utility's system do; where all of them
answer it takes about a second."""
STOP_S = max(GATEWAY_STOP_S, BRAIN_STOP_S) + LEAVE_S
"""Of the whole service: service managers have to wait for as long before they kill."""
STATUS_EVERY_S = 60.0


def _stop_signs(*, supervised: bool) -> asyncio.Event:
    """Set by SIGINT, by SIGTERM, and at a supervised process when its supervisor is gone."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.set_exception_handler(_nobodys)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if supervised:

        def gone() -> None:
            if not os.read(sys.stdin.fileno(), 64):
                loop.remove_reader(sys.stdin.fileno())
                stop.set()

        loop.add_reader(sys.stdin.fileno(), gone)
    return stop


def _nobodys(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """That a name was not resolved is nobody's error once the connection was given up: uvloop goes on to ask for it."""
    if not isinstance(context.get("exception"), socket.gaierror):
        loop.default_exception_handler(context)


async def serve_gateway(site: Site, chance: random.Random, *, supervised: bool) -> int:
    """Run the gateway until it is stopped; 0, or 1 where devices could not be handed back."""
    loop, notifier = asyncio.get_running_loop(), Notifier()
    stop = _stop_signs(supervised=supervised)
    around = Surroundings(clock=SystemClock(loop), runner=run_scheduled, chance=chance, watched=True)
    part = GatewayPart(
        site, around, drivers=plugins.drivers(), boot=this_boot(), on_event=lambda event: _told(event, site)
    )
    server = LocalServer(site.storage / SOCKET, part.answering)
    try:
        await server.start()
        notifier.tell(READY)
        await _until(stop, part.run(), notifier.show_progress(part.progress))
    finally:
        notifier.tell(STOPPING)
        with ends_within(GATEWAY_STOP_S):
            await part.hand_back()
            if loop.time() - part.desk.asked_s < ASKING_S:
                with suppress(TimeoutError):
                    await asyncio.wait_for(part.desk.drained.wait(), LAST_RECORDS_S)
            server.close()
            part.close()
            leave_within(LEAVE_S, 1)
    if left := part.gateway.reconciler.holding:
        print(f"derms: stopped; not handed back, left to their own timers: {', '.join(left)}", file=sys.stderr)
    return 1 if left else 0


async def serve_brain(site: Site, chance: random.Random, *, supervised: bool) -> int:
    """Run the brain until it is stopped."""
    from derms.service.brain_part import BrainPart

    loop, notifier = asyncio.get_running_loop(), Notifier()
    stop = _stop_signs(supervised=supervised)
    executor = ThreadPoolExecutor(1, "engine")
    clock = SystemClock(loop)
    around = Surroundings(
        clock=clock,
        runner=run_scheduled,
        chance=chance,
        executor=executor,
        plan_deadline_s=PLAN_DEADLINE_S,
        watched=True,
    )
    link = LocalLink(site.storage / SOCKET, clock, chance)
    status = 1
    try:
        part = BrainPart(site, around, link, on_event=lambda event: _told(event, site))
        notifier.tell(READY)
        try:
            await _until(stop, part.run(), _statuses(part, site), notifier.show_progress(part.progress))
        finally:
            notifier.tell(STOPPING)
            with ends_within(BRAIN_STOP_S):
                await part.finish()
        status = 0
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        leave_within(LEAVE_S, status)
    return status


async def serve_web(site: Site, chance: random.Random, *, supervised: bool) -> int:
    """Run the web process until it is stopped."""
    from derms.service.web import HealthServer

    notifier = Notifier()
    stop = _stop_signs(supervised=supervised)
    try:
        server = HealthServer(site.web.host, int(site.web.port), site.storage / SOCKET)
    except OSError as error:
        raise LinkError(f"web: {site.web.host}:{site.web.port:.0f}: {error.strerror}") from error
    thread = threading.Thread(target=server.serve_forever, name="web", daemon=True)
    thread.start()
    notifier.tell(READY)
    say(f"health: {server.url}")
    alive = 0

    def progress() -> int:
        nonlocal alive
        alive += thread.is_alive()
        return alive

    await _until(stop, asyncio.Event().wait(), notifier.show_progress(progress))
    server.shutdown()
    server.server_close()
    return 0


async def _until(stop: asyncio.Event, work: Any, *beside: Any) -> None:
    """Do the work, and what goes on beside it, until the work ends by itself or `stop` is set."""
    main, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    others = [asyncio.ensure_future(each) for each in beside]
    try:
        await asyncio.wait([main, stopping], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (main, stopping, *others):
            task.cancel()
        await asyncio.gather(main, stopping, *others, return_exceptions=True)
    for task in (main, *others):
        if not task.cancelled():
            task.result()


def _told(event: Event, site: Site) -> None:
    say(event_line(event, site.timezone))


async def _statuses(part: Any, site: Site) -> None:
    """A line a minute: net load, plan, devices."""
    while True:
        await asyncio.sleep(STATUS_EVERY_S)
        say(status_line(part.brain, part.alarms, site.timezone))


def run(process: str, site: Site, chance: random.Random, *, supervised: bool) -> int:
    """Run one of the processes until it is stopped; its exit status."""
    import uvloop

    serve = {"gateway": serve_gateway, "brain": serve_brain, "web": serve_web}[process]
    return uvloop.run(serve(site, chance, supervised=supervised))
