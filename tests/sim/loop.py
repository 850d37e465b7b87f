"""The loop of the simulation: virtual time, and lives of the product that are halted, resumed or killed at any await.

A life is one run of a part of the product: what it starts inherits it with the context. A killed life never runs
again: nothing it had scheduled, no clean-up code, nothing on the wire; its peers see their connections reset.
"""

import asyncio
import heapq
from collections import Counter
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar, TypeVarTuple
from weakref import WeakKeyDictionary

from derms.field.journal import Journal
from derms.service.simulated import SimulatedLoop, SimulatedNetwork, _SimulatedServer, _SimulatedTransport
from tests.sim.frames import FromClient, FromServer, Wire

_Ts = TypeVarTuple("_Ts")
_T = TypeVar("_T")

_NOBODY: Callable[[], object] = lambda: None  # noqa: E731 - the callback of a cancelled handle
BURIAL_ROUNDS, BURIAL_S = 60, 10.0
"""How often the tasks of the dead are cancelled after a run, and how long they are waited for each time."""


class Life:
    """One run of a part of the product, and what it has scheduled while it is halted."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.halted = False
        self.dead = False
        self.severed = False
        """Laid to rest: it may end its tasks, and reaches nothing."""
        self.tasks: set[asyncio.Task[Any]] = set()
        self.kept: list[asyncio.Handle] = []
        self.slow_disk_s = 0.0
        """Time that a commit of the journal takes longer."""
        self.hangs_until_s = 0.0
        """Work in executors, beside the journal, does not end before."""
        self.passed: Counter[str] = Counter()
        """Points that this life has come by, of every kind."""
        self.on_point: Callable[[str, int], None] = lambda kind, number: None
        """Told of each point with its number among its kind, before anything is done there."""

    @property
    def alive(self) -> bool:
        return not (self.dead or self.severed)

    def point(self, kind: str) -> None:
        """Come by a place where things may go wrong: `await`, `write`, `sync`, `connect`, `send`, `receive`."""
        number = self.passed[kind]
        self.passed[kind] = number + 1
        self.on_point(kind, number)


LIFE: ContextVar[Life | None] = ContextVar("life", default=None)


class SimLoop(SimulatedLoop):
    """The simulated loop with lives; see the module's text."""

    def __init__(self, network: SimulatedNetwork, wire: Wire) -> None:
        super().__init__(network)
        self.wire = wire
        self.lives: list[Life] = []
        self.unexpected: list[str] = []
        """Exceptions of live parts that nobody took."""
        self._of_world = copy_context()
        self._contexts: WeakKeyDictionary[_SimulatedTransport, Context] = WeakKeyDictionary()
        self.set_exception_handler(self._note)

    def begin(self, name: str) -> tuple[Life, Context]:
        """A new life, and the context to start its parts in."""
        life, context = Life(name), copy_context()
        context.run(LIFE.set, life)
        self.lives.append(life)
        return life, context

    def halt(self, life: Life) -> None:
        """Stop running a life, as SIGSTOP does."""
        life.halted = True
        ready = []
        for place, handle in enumerate(self._ready):
            if _life(handle) is life:  # others count on the length of the queue
                ready.append(handle)
                self._ready[place] = _nothing(self)
        timers = [timer for timer in self._timers if _life(timer[2]) is life]
        if timers:
            self._timers[:] = [timer for timer in self._timers if _life(timer[2]) is not life]
            heapq.heapify(self._timers)
        life.kept += [*ready, *(timer for _, _, timer in sorted(timers, key=lambda timer: timer[:2]))]

    def resume(self, life: Life) -> None:
        """Run it on from where it was."""
        life.halted = False
        kept, life.kept = life.kept, []
        for handle in kept:
            if isinstance(handle, asyncio.TimerHandle):
                heapq.heappush(self._timers, (handle.when(), next(self._order), handle))
            else:
                self._ready.append(handle)

    def kill(self, life: Life) -> None:
        """End a life between two of its steps; what it does in the rest of the present one has no effect."""
        life.dead = True
        for transport, context in list(self._contexts.items()):
            if context.get(LIFE) is life and not transport.is_closing():
                context.copy().run(transport.abort)
        self.halt(life)

    async def bury(self) -> None:
        """Let the tasks of killed lives end, severed from everything, so that nothing of them is left."""
        for life in self.lives:
            if life.dead:
                life.severed = True
                self.resume(life)
        for _ in range(BURIAL_ROUNDS):
            tasks = [task for life in self.lives if life.dead for task in life.tasks]
            if not tasks:
                return
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=BURIAL_S)
        raise AssertionError(f"tasks of the dead that do not end: {tasks}")

    def call_soon(
        self, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle:
        life = _of(context)
        if life is None:
            return super().call_soon(callback, *args, context=context)
        if not life.halted:
            life.point("await")
        if not life.halted:
            return super().call_soon(callback, *args, context=context)
        handle = asyncio.Handle(callback, args, self, context)
        life.kept.append(handle)
        return handle

    def call_at(
        self, when: float, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        owner = getattr(callback, "__self__", None)
        if isinstance(owner, _SimulatedTransport):  # what arrives is dealt with by whoever has that end
            sends = getattr(callback, "__name__", "") == "_receive"
            if sends and not self._sent(owner.peer):
                return asyncio.TimerHandle(when, callback, args, self, context)
            context = self._contexts.get(owner, context)
        life = _of(context)
        if life is None or not life.halted:
            return super().call_at(when, callback, *args, context=context)
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        life.kept.append(timer)
        return timer

    def create_task(
        self, coro: Generator[Any, None, _T] | Coroutine[Any, Any, _T], *, name: object = None, context: Any = None
    ) -> asyncio.Task[_T]:
        task: asyncio.Task[_T] = super().create_task(coro, name=name, context=context)
        life = _of(context)
        if life is not None:
            life.tasks.add(task)
            task.add_done_callback(life.tasks.discard)
        return task

    def run_in_executor(self, executor: Any, func: Callable[[*_Ts], Any], *args: *_Ts) -> asyncio.Future[Any]:
        life = LIFE.get()
        if life is None:
            return super().run_in_executor(executor, func, *args)
        of_journal = isinstance(getattr(func, "__self__", None), Journal)

        async def in_time() -> Any:
            await asyncio.sleep(life.slow_disk_s if of_journal else max(0.0, life.hangs_until_s - self.time()))
            return func(*args)

        return self.create_task(in_time())

    async def create_server(  # type: ignore[override]
        self, protocol_factory: Callable[[], asyncio.Protocol], host: str = "127.0.0.1", port: int = 0, **_: Any
    ) -> _SimulatedServer:
        return await super().create_server(lambda: FromClient(protocol_factory(), self.wire), host, port)

    async def create_connection(  # type: ignore[override]
        self, protocol_factory: Callable[[], asyncio.Protocol], host: str, port: int, **_: Any
    ) -> tuple[_SimulatedTransport, asyncio.Protocol]:
        life = LIFE.get()
        if life is None:
            return await super().create_connection(protocol_factory, host, port)
        if life.severed:
            raise ConnectionRefusedError(111, "the dead reach nobody")
        life.point("connect")
        self.wire.connects[port] += 1
        if self.wire.refuses(port):
            await asyncio.sleep(0.001)
            raise ConnectionRefusedError(111, f"{host}:{port} refuses")
        transport, outer = await super().create_connection(
            lambda: FromServer(protocol_factory(), self.wire, port, life.point), host, port
        )
        assert isinstance(outer, FromServer)
        self._contexts[transport] = copy_context()
        self._contexts[transport.peer] = self._of_world
        return transport, outer.inner

    @staticmethod
    def _sent(near: _SimulatedTransport) -> bool:
        """Whether what the present life sends leaves it; a point that raises OSError costs it the connection."""
        life = LIFE.get()
        if life is None:
            return True
        try:
            life.point("send")
        except OSError:
            near.abort()
            return False
        return life.alive

    def _note(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        life = LIFE.get()
        if life is None or life.alive:
            self.unexpected.append(f"{context.get('message')}: {context.get('exception')!r}")


def _of(context: Context | None) -> Life | None:
    return LIFE.get() if context is None else context.get(LIFE)


def _nothing(loop: asyncio.AbstractEventLoop) -> asyncio.Handle:
    """A handle that does nothing."""
    handle = asyncio.Handle(_NOBODY, (), loop)
    handle.cancel()
    return handle


def _life(handle: asyncio.Handle) -> Life | None:
    context: Context = handle._context  # type: ignore[attr-defined]
    return context.get(LIFE)


def run_sim(main: Callable[[SimLoop], Coroutine[Any, Any, _T]], *, seed: int, wire: Wire) -> _T:
    """Run a coroutine to its end on a loop of its own."""
    with asyncio.Runner(loop_factory=lambda: SimLoop(SimulatedNetwork(seed=seed), wire)) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, SimLoop)
        return runner.run(main(loop))
