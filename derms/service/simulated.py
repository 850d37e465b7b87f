"""Simulated time: an asyncio event loop with virtual time and an in-memory byte network, deterministic by seed.

Gateway, brain and simulated fleet run on it unmodified: they see `loop.time()`, timers, `create_connection` and
`create_server` as on any loop. Time jumps to the next timer whenever nothing is ready; work handed to an executor
runs in place and takes no simulated time. Every byte that is delivered enters the trace hash with its time.
"""

import asyncio
import hashlib
import heapq
import itertools
import random
import struct
from collections import defaultdict
from collections.abc import Callable, Coroutine
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, TypeVarTuple

from derms.errors import DermsError

_Ts = TypeVarTuple("_Ts")
_Factory = Callable[[], asyncio.Protocol]
_Name = tuple[str, int]
"""Host and port of a listener."""

_CANCELLED_MAX = 1000
"""Cancelled timers kept in the heap before it is cleaned."""
RESEND_S = 0.2
"""After which what was lost is sent again; twice as long each time."""


class SimulationStalled(DermsError):
    """Nothing is ready and no timer is set: the simulation would wait for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What is wrong with the way to a listener and back. Streams stay whole and in order, as TCP keeps them."""

    to_cut: bool = False
    """Nothing gets to the listener; what is sent waits, the end of a connection too, and arrives when it is mended."""
    back_cut: bool = False
    """The same for the way back."""
    latency_s: float = 0.0
    """On top of the usual, each way [s]."""
    jitter_s: float = 0.0
    """Mean of an exponential part on top of that [s]."""
    loss_frac: float = 0.0
    """Of deliveries, that are lost and sent again; below 1."""


class _Way:
    """The way to one listener and back."""

    def __init__(self) -> None:
        self.trouble = Trouble()
        self.held: list[Callable[[], None]] = []
        self.changed = asyncio.Event()


class SimulatedNetwork:
    """A network of byte streams between in-process endpoints, with seeded latency.

    Parameters
    ----------
    seed : int
        Seeds the latency of every delivery.
    latency_s, jitter_s : float
        Least latency and the mean of its exponential part [s].
    """

    def __init__(self, *, seed: int, latency_s: float = 0.004, jitter_s: float = 0.002) -> None:
        self._chance = random.Random(seed)
        self._latency_s = latency_s
        self._jitter_s = jitter_s
        self._listeners: dict[_Name, _SimulatedServer] = {}
        self._ways: defaultdict[_Name, _Way] = defaultdict(_Way)
        self._trace = hashlib.blake2b(digest_size=16)
        self._port_next = 20000
        self.delivered = 0

    @property
    def trace_hash(self) -> str:
        """Hash of all bytes delivered so far, with their times, sources and destinations."""
        return self._trace.hexdigest()

    def disturb(self, listener: _Name, trouble: Trouble) -> None:
        """Let a way be in this trouble from now on, and in no other; `Trouble()` mends it."""
        way = self._ways[listener]
        way.trouble = trouble
        way.changed.set()
        way.changed = asyncio.Event()
        held, way.held = way.held, []
        for send in held:
            send()

    def delay_s(self, listener: _Name) -> float:
        """Draw the latency of one delivery to a listener or back [s]."""
        usual_s = self._latency_s + self._chance.random() * 2.0 * self._jitter_s
        if listener not in self._ways:
            return usual_s
        trouble, chance = self._ways[listener].trouble, self._chance
        late_s = trouble.latency_s + (chance.expovariate(1.0 / trouble.jitter_s) if trouble.jitter_s else 0.0)
        resend_s = RESEND_S
        while chance.random() < trouble.loss_frac:
            late_s, resend_s = late_s + resend_s, 2.0 * resend_s
        return usual_s + late_s

    def holds(self, listener: _Name, send: Callable[[], None], *, back: bool) -> bool:
        """Whether the way is cut; then `send` is called when it changes."""
        if listener not in self._ways:
            return False
        way = self._ways[listener]
        cut = way.trouble.back_cut if back else way.trouble.to_cut
        if cut:
            way.held.append(send)
        return cut

    async def reach(self, listener: _Name) -> None:
        """As long as it takes to knock at a listener and hear of it."""
        await asyncio.sleep(self.delay_s(listener))
        while listener in self._ways:
            way = self._ways[listener]
            if not (way.trouble.to_cut or way.trouble.back_cut):
                return
            await way.changed.wait()

    def record(self, now_s: float, port: int, data: bytes) -> None:
        """Enter one delivery into the trace."""
        self.delivered += 1
        self._trace.update(struct.pack(">dHI", now_s, port & 0xFFFF, len(data)))
        self._trace.update(data)

    def listen(self, server: "_SimulatedServer", host: str, port: int) -> int:
        """Bind a server; port 0 takes the next free one. Raises OSError when the port is taken."""
        if port == 0:
            while (host, self._port_next) in self._listeners:
                self._port_next += 1
            port = self._port_next
        if (host, port) in self._listeners:
            raise OSError(98, f"address {host}:{port} already in use")
        self._listeners[host, port] = server
        return port

    def unlisten(self, host: str, port: int) -> None:
        self._listeners.pop((host, port), None)

    def listener(self, host: str, port: int) -> "_SimulatedServer | None":
        return self._listeners.get((host, port))


class SimulatedLoop(asyncio.BaseEventLoop):
    """An asyncio event loop on virtual time; see the module's text."""

    _ready: Any
    """The base class's queue of handles to run."""
    _stopping: bool

    def __init__(self, network: SimulatedNetwork) -> None:
        super().__init__()
        self.network = network
        self._now_s = 0.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._order = itertools.count()
        self._cancelled = 0

    def time(self) -> float:
        return self._now_s

    def call_at(
        self, when: float, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self._cancelled += 1

    def _run_once(self) -> None:
        ready, timers = self._ready, self._timers
        if self._cancelled > _CANCELLED_MAX:
            timers[:] = [timer for timer in timers if not timer[2].cancelled()]
            heapq.heapify(timers)
            self._cancelled = 0
        if not ready:
            while timers and timers[0][2].cancelled():
                heapq.heappop(timers)
                self._cancelled -= 1
            if timers:
                self._now_s = max(self._now_s, timers[0][0])
            elif not self._stopping:
                raise SimulationStalled(f"nothing ready and no timer set at {self._now_s:.3f} s")
        while timers and timers[0][0] <= self._now_s:
            ready.append(heapq.heappop(timers)[2])
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _write_to_self(self) -> None:
        """Nothing sleeps in a selector here, so there is nothing to wake."""

    def _process_events(self, event_list: Any) -> None:
        """There is no selector, so there are no events of one."""

    def run_in_executor(self, executor: Any, func: Callable[[*_Ts], Any], *args: *_Ts) -> asyncio.Future[Any]:
        async def in_place() -> Any:
            return func(*args)

        return self.create_task(in_place())

    async def create_server(  # type: ignore[override]
        self, protocol_factory: _Factory, host: str = "127.0.0.1", port: int = 0, **_: Any
    ) -> "_SimulatedServer":
        return _SimulatedServer(self, protocol_factory, host, port)

    async def create_connection(  # type: ignore[override]
        self, protocol_factory: _Factory, host: str, port: int, **_: Any
    ) -> tuple["_SimulatedTransport", asyncio.Protocol]:
        await self.network.reach((host, port))
        server = self.network.listener(host, port)
        if server is None:
            raise ConnectionRefusedError(111, f"nobody listens at {host}:{port}")
        near, far = protocol_factory(), server.protocol_factory()
        here = _SimulatedTransport(self, near, ("127.0.0.1", 0), (host, port))
        there = _SimulatedTransport(self, far, (host, port), ("127.0.0.1", 0))
        here.peer, there.peer = there, here
        server.connections.add(there)
        there.server = server
        far.connection_made(there)
        near.connection_made(here)
        return here, near


class _SimulatedSocket:
    """As much of a listening socket as servers are asked for."""

    def __init__(self, name: tuple[str, int]) -> None:
        self._name = name

    def getsockname(self) -> tuple[str, int]:
        return self._name


class _SimulatedServer(asyncio.AbstractServer):
    """A listening endpoint of the simulated network."""

    def __init__(self, loop: SimulatedLoop, protocol_factory: _Factory, host: str, port: int) -> None:
        self._loop = loop
        self.protocol_factory = protocol_factory
        self.connections: set[_SimulatedTransport] = set()
        self._name = (host, loop.network.listen(self, host, port))
        self.sockets = (_SimulatedSocket(self._name),)

    def close(self) -> None:
        self._loop.network.unlisten(*self._name)

    async def wait_closed(self) -> None:
        return None

    async def start_serving(self) -> None:
        """It listens from the start."""

    async def serve_forever(self) -> None:
        await asyncio.Event().wait()

    def is_serving(self) -> bool:
        return self._loop.network.listener(*self._name) is self

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop


class _SimulatedTransport(asyncio.Transport):
    """One end of a connection; bytes arrive at the other in order, each write after a latency of its own."""

    peer: "_SimulatedTransport"
    server: _SimulatedServer | None = None

    def __init__(
        self, loop: SimulatedLoop, protocol: asyncio.Protocol, name: tuple[str, int], peer: tuple[str, int]
    ) -> None:
        super().__init__({"sockname": name, "peername": peer})
        self._loop = loop
        self._protocol = protocol
        self._listener = peer if peer[1] else name
        self._closed = False
        self._arrival_last_s = 0.0

    def _arrival_s(self) -> float:
        """When what is sent now arrives: never before, nor together with, what was sent earlier."""
        delay_s = self._loop.network.delay_s(self._listener)
        arrival_s = max(self._loop.time() + delay_s, self._arrival_last_s + 1e-6)
        self._arrival_last_s = arrival_s
        return arrival_s

    def _send(self, arrive: Callable[[*_Ts], object], *what: *_Ts) -> None:
        """Have something arrive at the other end."""
        again = partial(self._send, arrive, *what)
        if not self._loop.network.holds(self._listener, again, back=self.server is not None):
            self._loop.call_at(self._arrival_s(), arrive, *what)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._closed:
            self._send(self.peer._receive, bytes(data))

    def _receive(self, data: bytes) -> None:
        if not self._closed:
            self._loop.network.record(self._loop.time(), self._listener[1], data)
            self._protocol.data_received(data)

    def close(self) -> None:
        if not self._closed:
            self._send(self.peer._lost, None)
            self._lost(None)

    def abort(self) -> None:
        if not self._closed:
            self._send(self.peer._lost, ConnectionResetError(104, "reset by peer"))
            self._lost(None)

    def _lost(self, error: Exception | None) -> None:
        if not self._closed:
            self._closed = True
            if self.server is not None:
                self.server.connections.discard(self)
            self._loop.call_soon(self._protocol.connection_lost, error)

    def is_closing(self) -> bool:
        return self._closed

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is buffered: what is written is on its way."""

    def get_write_buffer_size(self) -> int:
        return 0


_T = TypeVar("_T")


def run_simulated(main: Callable[[SimulatedLoop], Coroutine[Any, Any, _T]], *, seed: int) -> _T:
    """Run a coroutine to its end on a loop of its own in simulated time."""
    with asyncio.Runner(loop_factory=lambda: SimulatedLoop(SimulatedNetwork(seed=seed))) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, SimulatedLoop)
        return runner.run(main(loop))
