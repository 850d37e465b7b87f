"""Saves orders beside the event loop: one save at a time, and the latest state wins.

A disk that hangs holds nobody up. What holds without being durable is told, and saved as soon as the disk takes it.
"""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from derms.domain.alarm import Event, Severity
from derms.field.orders_file import Kept, OrdersFile
from derms.ports import Clock

SAVE_S = 3.0
"""For a change to be saved before it is refused, and for what holds before it is told that it is not saved."""
LATE = f"it takes longer than {SAVE_S:g} s"


@dataclass(slots=True)
class Saver:
    """Saves what holds, and what is to hold; see the module's text. It belongs to one loop."""

    file: OrdersFile | None
    """None keeps nothing, and nothing is missing."""
    devices: tuple[str, ...]
    clock: Clock
    on_event: Callable[[Event], None]
    waiting: Kept | None = None
    """What holds and is not durable; None where everything is."""
    _saving: asyncio.Future[str] | None = None
    _begun_s: float = 0.0
    _told: bool = False
    _alone: threading.Lock = field(default_factory=threading.Lock)

    def in_place(self, kept: Kept) -> str:
        """Save at once, where no loop is held up by it; why it is not possible, or nothing."""
        if self.file is None:
            return ""
        try:
            with self._alone:
                self.file.save(kept, self.devices)
        except OSError as error:
            return error.strerror or str(error)
        return ""

    async def save(self, kept: Kept, otherwise: Kept) -> str:
        """Save what is to hold; why that is not possible in time, or nothing.

        What was too late may still be saved: then `otherwise`, which holds in its place, is saved after it.
        """
        try:
            async with asyncio.timeout(SAVE_S):
                while self._saving is not None:
                    await asyncio.wait([self._saving])
                return await asyncio.shield(self._begin(kept))
        except TimeoutError:
            self.waiting = self.waiting or otherwise
            return LATE

    def hold(self, kept: Kept) -> None:
        """Have it saved soon: it holds already."""
        self.waiting = kept

    def saved(self, kept: Kept, holds: Kept) -> None:
        """Hear that a state was saved, and which one holds now."""
        self.waiting = None if kept is holds else holds
        if self._told and self.waiting is None:
            self._told = False
            self._event("orders-kept", "orders can be saved again", Severity.INFO)

    def look(self, holds: Kept) -> None:
        """Begin to save what waits, unless that is under way; for as long as it waits `holds` is what holds."""
        if self._saving is not None:
            if self.waiting is not None and self.clock.monotonic_s() - self._begun_s > SAVE_S:
                self.fails(LATE)
        elif self.waiting is not None:
            self.waiting = holds
            self._begin(holds).add_done_callback(lambda saving: self._looked(saving, holds))

    def fails(self, why: str, severity: Severity = Severity.ALARM) -> None:
        """Tell, once, that what holds cannot be saved."""
        if not self._told:
            self._told = True
            text = f"what people have laid down holds until this process ends, and cannot be saved: {why}"
            self._event("orders-not-kept", text, severity)

    async def settled(self, within_s: float) -> None:
        """Wait until what is being saved is so, for a while."""
        if self._saving is not None:
            await asyncio.wait([self._saving], timeout=within_s)

    def _begin(self, kept: Kept) -> asyncio.Future[str]:
        self._begun_s = self.clock.monotonic_s()
        self._saving = asyncio.get_running_loop().run_in_executor(None, self.in_place, kept)
        self._saving.add_done_callback(self._ended)
        return self._saving

    def _ended(self, saving: asyncio.Future[str]) -> None:
        self._saving = None

    def _looked(self, saving: asyncio.Future[str], kept: Kept) -> None:
        if saving.cancelled() or self.waiting is None:
            return
        if failed := saving.result():
            self.fails(failed)
        else:
            self.saved(kept, self.waiting)

    def _event(self, kind: str, text: str, severity: Severity) -> None:
        self.on_event(Event(self.clock.utc(), severity, "gateway", kind, text))
