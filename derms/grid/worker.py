"""The confined process: one feeder's engine, called over its standard input, which is a socket, until that closes.

`derms.grid.remote` starts it. It is given the feeder, confines itself, only then reads the circuit, and answers
messages one by one. Each holds calls of the engine's methods and is answered by what the last of them gives. Should the
process that started it die meanwhile, an alarm ends this one.
"""

import os
import signal
from pathlib import Path
from typing import Any

from derms.errors import GridError
from derms.grid.confine import confine
from derms.grid.network import Network
from derms.grid.opendss import FeederEngine
from derms.grid.wire import LENGTH, decode, encode

CHANNEL = 0
ALARM_SLACK_S = 5.0
"""How much later than the caller this process itself finds that a call takes too long."""


def main() -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, wherever it is
    engine = _opened()
    sent: Network | None = None
    while engine is not None and (message := _received()):
        seconds, *requests = decode(message)
        _be_done_within(seconds)
        try:
            for name, *arguments in requests:
                answer = getattr(engine, name)(*arguments)
        except GridError as error:
            answer = error
        if isinstance(answer, Network):  # the caller keeps it: it is by far the largest answer
            sent, answer = answer, None if answer is sent else answer
        _send(answer)


def _opened() -> FeederEngine | None:
    """The engine of the feeder that the first message names; None when it cannot be had, and the caller knows."""
    seconds, package, line_scale = decode(_received())
    _be_done_within(seconds)
    try:
        confine(package.circuit.parent, Path.cwd())
        engine = FeederEngine(package, line_scale=line_scale, confined=True)
    except GridError as error:
        _send(error)
        return None
    _send(engine.layout)
    return engine


def _be_done_within(seconds: float) -> None:
    signal.setitimer(signal.ITIMER_REAL, seconds + ALARM_SLACK_S)


def _received() -> bytes:
    """The next message; empty when there are no more."""
    head = _read(LENGTH.size)
    return _read(*LENGTH.unpack(head)) if len(head) == LENGTH.size else b""


def _read(count: int) -> bytes:
    parts: list[bytes] = []
    while count and (part := os.read(CHANNEL, count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _send(answer: Any) -> None:
    message = encode(answer)
    rest = memoryview(LENGTH.pack(len(message)) + message)
    while rest:
        rest = rest[os.write(CHANNEL, rest) :]
    signal.setitimer(signal.ITIMER_REAL, 0.0)


if __name__ == "__main__":
    main()
