"""An engine whose circuit runs in a confined process of its own: for circuit text that is not the product's.

What comes back from there is data, checked before it is used (`derms.grid.wire`); what does not come back in time ends
that process. The next call starts another and sets what was set.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

from derms.domain.arrays import BoolArray, FloatArray
from derms.domain.grid import FeederPackage
from derms.errors import GridError, ModelError, NotConverged
from derms.grid.engine import Engine, PowerFlow
from derms.grid.layout import FeederLayout, column
from derms.grid.network import Network
from derms.grid.wire import LENGTH, decode, encode, fits

OPEN_MAX_S = 120.0
"""From the start of a process to its compiled circuit."""
CALL_MAX_S = 30.0
MESSAGE_MAX_BYTES = 256 << 20
LAST_WORDS_MAX_BYTES = 500
"""Of what a process wrote before it died."""

ENVIRONMENT = ("LD_LIBRARY_PATH", "PATH", "PYTHONHOME", "PYTHONPATH", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""What a confined process is told of this one's environment: no secrets."""
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""Threads of numpy's libraries would be there before the process confines itself, and not be confined."""


_Request = tuple[Any, ...]
"""A method of `Engine` and its arguments."""


class _Worker:
    """One confined process, the way to it, and the folder that it may write."""

    def __init__(self, feeder: str) -> None:
        self._feeder = feeder
        scratch = tempfile.TemporaryDirectory(prefix="derms-grid-")
        self._words = Path(scratch.name, "words")
        self._channel, theirs = socket.socketpair()
        with theirs, self._words.open("wb") as words:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "derms.grid.worker"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=words,
                cwd=scratch.name,
                env=ONE_THREAD | {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
                start_new_session=True,  # a Ctrl-C is for the process that started it
            )
        self.end = weakref.finalize(self, _end, self._process, self._channel, scratch)
        """Ends the process; done by itself when the worker is forgotten."""

    def ask(self, max_s: float, *request: Any) -> Any:
        """The answer to a request; raises GridError, and ends the process, when there is none that can be read."""
        message = encode((max_s, *request))
        try:
            answer = decode(self._exchange(message, time.monotonic() + max_s))
        except TimeoutError:
            self.end()
            raise GridError(f"{self._feeder}: no answer of the confined process within {max_s:g} s") from None
        except ValueError as error:
            self.end()
            raise GridError(f"{self._feeder}: no sense in the confined process's answer: {error}") from error
        except OSError:
            raise GridError(f"{self._feeder}: {self._last_words()}") from None
        if isinstance(answer, GridError):
            raise answer
        return answer

    def _exchange(self, message: bytes, deadline_s: float) -> bytearray:
        self._channel.settimeout(max(deadline_s - time.monotonic(), 0.0))
        self._channel.sendall(LENGTH.pack(len(message)) + message)
        (length,) = LENGTH.unpack(self._read(LENGTH.size, deadline_s))
        if length > MESSAGE_MAX_BYTES:
            raise ValueError(f"{length} bytes")
        return self._read(length, deadline_s)

    def _read(self, count: int, deadline_s: float) -> bytearray:
        read = bytearray(count)
        rest = memoryview(read)
        while rest:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0.0:
                raise TimeoutError
            self._channel.settimeout(left_s)
            size = self._channel.recv_into(rest)
            if size == 0:
                raise ConnectionError
            rest = rest[size:]
        return read

    def _last_words(self) -> str:
        """Why the process ended."""
        self._process.kill()  # it closed its end: whatever it still does is of no use
        code = self._process.wait()
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
        with self._words.open("rb") as words:
            words.seek(max(words.seek(0, os.SEEK_END) - LAST_WORDS_MAX_BYTES, 0))
            *_, last = ["", *words.read().decode(errors="replace").splitlines()]
        self.end()
        return f"the confined process ended {how}{': ' * bool(last)}{last}"


def _end(process: subprocess.Popen[bytes], channel: socket.socket, scratch: tempfile.TemporaryDirectory[str]) -> None:
    process.kill()
    process.wait()
    channel.close()
    scratch.cleanup()


class ConfinedEngine:
    """An `Engine` in a confined process.

    Parameters
    ----------
    package
        The feeder; of the file system its process sees the folder of the circuit, and nothing else.
    line_scale
        Factors on the lengths of lines, by name.

    Raises
    ------
    ModelError
        The system cannot confine a process, the circuit asks for more than it may, or is none.
    NotConverged
        The circuit as it stands in its files has no solution.
    """

    layout: FeederLayout

    def __init__(self, package: FeederPackage, *, line_scale: Mapping[str, float] | None = None) -> None:
        self.package = package
        self._scale = dict(line_scale or {})
        self._kept: dict[tuple[str, ...], _Request] = {}
        """The latest of every request that sets something."""
        self._unsent: dict[tuple[str, ...], _Request] = {}
        """Those of them that go with the next call."""
        self._busy = threading.Lock()
        self._closed = False
        self._worker, self.layout = self._started()
        self._network: Network | None = None

    def set_loads(self, p_w: FloatArray, q_var: FloatArray) -> None:
        count = len(self.layout.loads)
        self._put_later("set_loads", column("load power", p_w, count), column("reactive load", q_var, count))

    def set_der(self, p_w: FloatArray, q_var: FloatArray) -> None:
        count = len(self.layout.ders)
        self._put_later("set_der", column("DER power", p_w, count), column("reactive DER power", q_var, count))

    def set_source_pu(self, v_pu: float) -> None:
        self._put("set_source_pu", v_pu)

    def freeze_controls(self, frozen: bool) -> None:
        self._put("freeze_controls", frozen)

    def frozen(self) -> bool:
        frozen: bool = self._call("frozen")
        return frozen

    def set_tolerance(self, v_pu: float) -> None:
        self._put("set_tolerance", v_pu)

    def set_regulator_target(self, name: str, vreg_v: float) -> None:
        self._call("set_regulator_target", name, vreg_v)
        self._kept["set_regulator_target", name.lower()] = ("set_regulator_target", name, vreg_v)

    def regulator_targets_v(self) -> dict[str, float]:
        targets: dict[str, float] = self._call("regulator_targets_v")
        return targets

    def taps(self) -> dict[str, int]:
        taps: dict[str, int] = self._call("taps")
        return taps

    def set_taps(self, taps: Mapping[str, int]) -> None:
        self._put_each("set_taps", taps)

    def capacitors(self) -> dict[str, int]:
        steps: dict[str, int] = self._call("capacitors")
        return steps

    def set_capacitors(self, steps: Mapping[str, int]) -> None:
        self._put_each("set_capacitors", steps)

    def switches(self) -> dict[str, bool]:
        closed: dict[str, bool] = self._call("switches")
        return closed

    def set_switches(self, closed: Mapping[str, bool]) -> None:
        self._put_each("set_switches", closed)

    def solve(self) -> PowerFlow:
        flow: PowerFlow = self._call("solve")
        return flow

    def restart(self) -> None:
        for columns in ("set_loads", "set_der"):
            self._kept.pop((columns,), None)
            self._unsent.pop((columns,), None)
        self._call("restart")

    def losses_w(self) -> float:
        losses_w: float = self._call("losses_w")
        return losses_w

    def energised(self) -> BoolArray:
        energised: BoolArray = self._call("energised")
        return energised

    def network(self) -> Network:
        self._network = self._call("network") or self._network
        if self._network is None:
            raise GridError(f"{self.package.id}: no sense in the confined process's answer: no network")
        return self._network

    def close(self) -> None:
        self._closed = True
        self._worker.end()

    # --- the process -------------------------------------------------------------------------------------------------

    def _put(self, name: str, *arguments: Any) -> None:
        self._call(name, *arguments)
        self._kept[(name,)] = (name, *arguments)

    def _put_each(self, name: str, values: Mapping[str, Any]) -> None:
        self._call(name, dict(values))
        self._kept |= {(name, key.lower()): (name, {key: value}) for key, value in values.items()}

    def _put_later(self, name: str, *columns: FloatArray) -> None:
        """Set what has been checked here together with the next call: a way there and back costs more than it does."""
        self._kept[(name,)] = self._unsent[(name,)] = (name, *columns)

    def _call(self, name: str, *arguments: Any) -> Any:
        if self._closed:
            raise GridError(f"{self.package.id}: the engine is closed")
        if not self._busy.acquire(blocking=False):
            raise GridError(f"{self.package.id}: the engine is used by two threads at once")
        try:
            if not self._worker.end.alive:
                self._start_anew()
            requests, self._unsent = [*self._unsent.values(), (name, *arguments)], {}
            answer = self._worker.ask(CALL_MAX_S, *requests)
        finally:
            self._busy.release()
        if not fits(answer, ANSWERS[name]):
            self._worker.end()
            raise GridError(f"{self.package.id}: no sense in the confined process's answer to {name}")
        return answer

    def _started(self) -> tuple[_Worker, FeederLayout]:
        worker = _Worker(self.package.id)
        package = replace(self.package, circuit=self.package.circuit.absolute())
        try:
            layout = worker.ask(OPEN_MAX_S, package, self._scale)
        except (ModelError, NotConverged):
            worker.end()
            raise
        except GridError as error:
            raise ModelError(f"{error}; its circuit is not loaded") from error
        if not isinstance(layout, FeederLayout):
            worker.end()
            raise ModelError(f"{self.package.id}: no sense in the confined process's first answer")
        return worker, layout

    def _start_anew(self) -> None:
        """Another process with the same feeder; the call to come sets it as the one before."""
        worker, layout = self._started()
        if encode(layout) != encode(self.layout):
            worker.end()
            raise ModelError(f"{self.package.id}: the circuit's files have changed since it was opened; open it again")
        self._worker, self._network, self._unsent = worker, None, dict(self._kept)


ANSWERS: Mapping[str, Any] = {
    name: get_type_hints(method)["return"]
    for name, method in vars(Engine).items()
    if not name.startswith("_") and callable(method)
} | {"network": Network | None}
"""What each method of an engine gives; the network only when it is another than the last one."""
