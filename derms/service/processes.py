"""`derms run`: starts gateway, brain and web as processes of their own, and sees to it that they go on.

One that ends, or shows no progress for too long, is started again after a wait that doubles. The gateway comes first:
where it cannot start at all, nothing does. What the processes say is passed on. They end when this one is gone.
"""

import asyncio
import contextlib
import math
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from derms.service.notify import ADDRESS, ALIVE, READY, WATCHDOG, Notifier
from derms.service.words import say

WATCHDOGS_S: Mapping[str, float] = {"gateway": 30.0, "brain": 120.0, "web": 60.0}
"""Longest time without progress of each process; a plan may hold up the brain's for some twenty seconds."""
READY_S = 120.0
"""For a process to be at work after its start."""
RESTART_MIN_S = 1.0
RESTARTS_MAX_S: Mapping[str, float] = {"gateway": 8.0, "brain": 60.0, "web": 60.0}
"""Longest wait before a process is started again; the gateway is back long before devices let go by themselves."""
STEADY_S = 10.0
"""A process that was at work for so long was started well: the next one waits for the shortest time again."""
KILL_S = 5.0
"""For a process to tell where its threads stand before it is killed."""
WATCH_S = 1.0


@dataclass(slots=True)
class Child:
    """One of the processes."""

    name: str
    process: asyncio.subprocess.Process
    heard_s: float
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    ready_s: float = math.inf
    """When it said that it is at work."""


class _Signs(asyncio.DatagramProtocol):
    """Takes the signs of life of one child."""

    def __init__(self, child: Child, above: Notifier) -> None:
        self._child = child
        self._above = above

    def datagram_received(self, data: bytes, addr: object) -> None:
        child, words = self._child, data.decode("ascii", "replace").split("\n")
        if READY in words or ALIVE in words:
            child.heard_s = asyncio.get_running_loop().time()
        if READY in words:
            child.ready_s = min(child.ready_s, child.heard_s)
            child.ready.set()
        if child.name == "gateway":  # the service is as well as its gateway is
            for word in words:
                self._above.tell(word)


class Processes:
    """Starts and watches the processes of one site; see the module's text."""

    def __init__(
        self,
        command: Callable[[str], Sequence[str]],
        *,
        stop_s: float,
        watchdogs_s: Mapping[str, float] = WATCHDOGS_S,
        kill_s: float = KILL_S,
    ) -> None:
        """`command` gives the words that start a process of the name."""
        self._command = command
        self._stop_s = stop_s
        self._watchdogs_s = watchdogs_s
        self._kill_s = kill_s
        self._above = Notifier()
        self.children: dict[str, Child] = {}

    async def run(self, stop: asyncio.Event, greeting: str) -> int:
        """Until `stop` is set, or the gateway cannot start; the exit status of the gateway."""
        begun, first = asyncio.Event(), asyncio.get_running_loop().create_future()
        tasks = [asyncio.create_task(self._keep("gateway", stop, begun, first))]
        stopping = asyncio.create_task(stop.wait())
        beginning = asyncio.create_task(begun.wait())
        await asyncio.wait([tasks[0], stopping, beginning], return_when=asyncio.FIRST_COMPLETED)
        if begun.is_set():
            say(greeting)
            tasks += [asyncio.create_task(self._keep(name, stop, asyncio.Event(), None)) for name in ("brain", "web")]
        statuses = await asyncio.gather(*tasks)
        for task in (stopping, beginning):
            task.cancel()
        await asyncio.gather(stopping, beginning, return_exceptions=True)
        return statuses[0]

    async def _keep(
        self, name: str, stop: asyncio.Event, begun: asyncio.Event, first: asyncio.Future[int] | None
    ) -> int:
        """Have a process run until `stop` is set; its last exit status.

        With `first`, one that ends before it has ever been at work is not started again.
        """
        loop, wait_s = asyncio.get_running_loop(), RESTART_MIN_S
        while True:
            status = await self._once(name, stop, begun)
            if stop.is_set() or (first is not None and not begun.is_set()):
                return status
            if loop.time() - self.children[name].ready_s > STEADY_S:
                wait_s = RESTART_MIN_S
            say(f"{name} ended with status {status}: it is started again in {wait_s:g} s")
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), wait_s)
                return status
            wait_s = min(2.0 * wait_s, RESTARTS_MAX_S[name])

    async def _once(self, name: str, stop: asyncio.Event, begun: asyncio.Event) -> int:
        """One life of a process; its exit status."""
        async with self._started(name) as child:
            ended = asyncio.create_task(child.process.wait())
            passed = [asyncio.create_task(self._pass_on(child, error=error)) for error in (False, True)]
            told = asyncio.create_task(_follow(child.ready, begun))
            while not ended.done() and not stop.is_set():
                await _either(ended, stop, WATCH_S)
                await self._look_after(child, ended)
            if not ended.done():
                with suppress(ProcessLookupError):
                    child.process.send_signal(signal.SIGTERM)
                await asyncio.wait([ended], timeout=self._stop_s)
            if not ended.done():
                await self._kill(child, ended, f"did not end within {self._stop_s:.0f} s")
            await asyncio.gather(*passed)
            told.cancel()
            return await ended

    async def _look_after(self, child: Child, ended: "asyncio.Task[int]") -> None:
        limit_s = self._watchdogs_s[child.name] if child.ready.is_set() else READY_S
        if not ended.done() and asyncio.get_running_loop().time() - child.heard_s > limit_s:
            await self._kill(child, ended, f"showed no progress for {limit_s:.0f} s")

    async def _kill(self, child: Child, ended: "asyncio.Task[int]", why: str) -> None:
        """End a process the hard way; it first tells where its threads stand."""
        say(f"{child.name} {why}: it is killed")
        with suppress(ProcessLookupError):
            child.process.send_signal(signal.SIGABRT)
            await asyncio.wait([ended], timeout=self._kill_s)
            if not ended.done():
                child.process.kill()
        await asyncio.wait([ended])

    @asynccontextmanager
    async def _started(self, name: str) -> AsyncIterator[Child]:
        """A process, with a socket for its signs of life."""
        loop, address = asyncio.get_running_loop(), f"derms-{os.getpid()}-{name}"
        watchdog_us = str(round(1e6 * self._watchdogs_s[name]))
        signs = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with contextlib.closing(signs):
            signs.bind("\0" + address)
            signs.setblocking(False)
            process = await asyncio.create_subprocess_exec(
                *self._command(name),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**os.environ, ADDRESS: "@" + address, WATCHDOG: watchdog_us},
            )
            child = self.children[name] = Child(name, process, loop.time())
            transport, _ = await loop.create_datagram_endpoint(lambda: _Signs(child, self._above), sock=signs)
            try:
                yield child
            finally:
                transport.close()

    async def _pass_on(self, child: Child, *, error: bool) -> None:
        """What a process says, line by line."""
        stream = child.process.stderr if error else child.process.stdout
        assert stream is not None
        while line := await stream.readline():
            text = line.decode("utf8", "replace").rstrip("\n")
            if error:
                print(text, file=sys.stderr, flush=True)
            else:
                say(text)


async def _follow(one: asyncio.Event, other: asyncio.Event) -> None:
    await one.wait()
    other.set()


async def _either(ended: "asyncio.Task[int]", stop: asyncio.Event, within_s: float) -> None:
    """Wait for one of the two, for some time."""
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([ended, stopping], timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
