"""The link over a socket of this machine: a connection for each request, one frame each way.

A frame is its length in four bytes and a packed message. The author of a request is the operating-system user at the
other end, as the system says it.
"""

import asyncio
import os
import pwd
import random
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from derms.errors import LinkError, RecordError
from derms.link.answering import Answering
from derms.link.asking import Envelopes, Reply, opened
from derms.link.messages import PACKER, Envelope
from derms.ports import Clock

SOCKET = "gateway.sock"
"""Its name, in the storage folder of the site."""
FRAME_MAX_BYTES = 1 << 28
ARRIVAL_S = 10.0
"""For a request to arrive whole, once its connection stands."""
_LENGTH = struct.Struct(">I")
_CREDENTIALS = struct.Struct("3i")
_PATH_MAX = 107
"""Bytes that the system takes for the path of a socket."""


def this_boot() -> str:
    """Names this machine since its last start: monotonic times are comparable within it."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _frame(message: object) -> bytes:
    data = PACKER.pack(message)
    return _LENGTH.pack(len(data)) + data


def _checked(length: int) -> int:
    if length > FRAME_MAX_BYTES:
        raise LinkError(f"a frame of {length} bytes; more than {FRAME_MAX_BYTES} is none of ours")
    return length


async def _read(reader: asyncio.StreamReader) -> object:
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    found: object = PACKER.unpack(await reader.readexactly(_checked(length)))
    return found


def _user(peer: socket.socket) -> str:
    """Who is at the other end."""
    _, uid, _ = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    with suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return f"uid {uid}"


def _fits(path: Path) -> Path:
    if len(os.fsencode(path)) > _PATH_MAX:
        raise LinkError(f"{path}: a socket's path has at most {_PATH_MAX} bytes: use a shorter storage folder")
    return path


class LocalServer:
    """Listens on a socket for requests; only those may connect who may write to it: owner and group."""

    def __init__(self, path: Path, answering: Answering) -> None:
        self._path = _fits(path)
        self._answering = answering
        self._server: asyncio.AbstractServer | None = None

    async def start(self) -> None:
        """Begin to listen; raises LinkError when that is not possible. One that was left behind is replaced."""
        try:
            self._path.unlink(missing_ok=True)
            self._server = await asyncio.start_unix_server(self._serve, str(self._path))
            self._path.chmod(0o660)
        except OSError as error:
            raise LinkError(f"{self._path}: {error.strerror}") from error

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(ARRIVAL_S):
                envelope = await _read(reader)
            if isinstance(envelope, Envelope):
                answer = await self._answering.answer(envelope, _user(writer.get_extra_info("socket")))
                writer.write(_frame(answer))
                await writer.drain()
        except (OSError, EOFError, TimeoutError, LinkError, RecordError):
            pass  # whoever asked has left, or does not speak this language; there is nobody to tell
        finally:
            writer.close()

    def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)


class LocalLink:
    """Asks the gateway over its socket."""

    def __init__(self, path: Path, clock: Clock, chance: random.Random) -> None:
        self._path = _fits(path)
        self._clock = clock
        self._envelopes = Envelopes(this_boot(), f"{chance.getrandbits(64):016x}")

    async def ask(self, request: object, kind: type[Reply], *, within_s: float) -> Reply:
        writer = None
        envelope = self._envelopes.sealed(request, self._clock.monotonic_s(), within_s)
        with _told(request, self._path, within_s):
            try:
                async with asyncio.timeout(within_s):
                    reader, writer = await asyncio.open_unix_connection(str(self._path))
                    writer.write(_frame(envelope))
                    await writer.drain()
                    return opened(await _read(reader), envelope, kind)
            finally:
                if writer is not None:
                    writer.close()


def call(path: Path, request: object, kind: type[Reply], *, within_s: float) -> Reply:
    """Ask without a loop, for commands; raises LinkError as a link does."""
    end_s = time.monotonic() + within_s
    sender = f"{os.getpid()}-{time.monotonic_ns()}"
    envelope = Envelopes(this_boot(), sender).sealed(request, time.monotonic(), within_s)
    with _told(request, path, within_s), socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(within_s)
        peer.connect(str(_fits(path)))
        peer.sendall(_frame(envelope))
        (length,) = _LENGTH.unpack(_receive(peer, _LENGTH.size, end_s))
        return opened(PACKER.unpack(_receive(peer, _checked(length), end_s)), envelope, kind)


@contextmanager
def _told(request: object, path: Path, within_s: float) -> Iterator[None]:
    """What can go wrong on the way, as a LinkError."""
    what = type(request).__name__
    try:
        yield
    except TimeoutError as error:
        raise LinkError(f"{what}: no answer within {within_s:g} s") from error
    except EOFError as error:
        raise LinkError(f"{what}: the gateway closed the connection without an answer") from error
    except OSError as error:
        raise LinkError(f"{what}: no gateway at {path}: {error.strerror}") from error
    except RecordError as error:
        raise LinkError(f"{what}: {error}") from error


def _receive(peer: socket.socket, length: int, end_s: float) -> bytes:
    data = bytearray()
    while len(data) < length:
        peer.settimeout(max(1e-3, end_s - time.monotonic()))
        part = peer.recv(length - len(data))
        if not part:
            raise EOFError
        data += part
    return bytes(data)
