"""A service manager is told that this process is ready, and that it gets on: the protocol of systemd's sd_notify."""

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress

ADDRESS, WATCHDOG = "NOTIFY_SOCKET", "WATCHDOG_USEC"
READY, ALIVE, STOPPING = "READY=1", "WATCHDOG=1", "STOPPING=1"


class Notifier:
    """Tells the manager whose address is in the environment; nobody, where there is none."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        found = os.environ if environment is None else environment
        self._address = found.get(ADDRESS, "")
        self.watchdog_s = int(found.get(WATCHDOG) or 0) / 1e6
        """After which without a sign of life this process is ended; 0: never."""

    def tell(self, words: str) -> None:
        """Say one of the words above; that nobody listens stops nothing."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, suppress(OSError):
            manager.setblocking(False)  # a manager that does not read must not hold up the loop
            manager.sendto(words.encode(), address)

    async def show_progress(self, progress: Callable[[], int]) -> None:
        """Until cancelled: give a sign of life when there was progress since the last one, and only then."""
        if not self.watchdog_s:
            return
        seen = progress()
        while True:
            await asyncio.sleep(self.watchdog_s / 3.0)
            if (now := progress()) != seen:
                seen = now
                self.tell(ALIVE)
