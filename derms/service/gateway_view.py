"""The gateway as the brain sees it over the link: what the field says, dispatches handed over, records taken."""

from collections.abc import Callable

from derms.control.authority import Ticket
from derms.domain.alarm import Event, Severity
from derms.domain.desk import DeskOrder
from derms.domain.dispatch import Dispatch
from derms.domain.records import Records
from derms.domain.refusal import Refused
from derms.errors import LinkError
from derms.historian.store import Store
from derms.link.asking import Link
from derms.link.messages import Drain, Hand, Heard, Lead, Led, Observe, Observed, Taken, Tell
from derms.ports import Clock

GATEWAY = "gateway"
"""Whose journal the database has an account of."""
LINK_S = 5.0
"""For one answer of the gateway."""
ENTRIES_MAX = 5000
"""That are asked for at a time."""


class GatewayView:
    """One brain's view of a gateway; every call raises LinkError where the gateway does not answer."""

    def __init__(self, link: Link, clock: Clock, on_event: Callable[[Event], None]) -> None:
        self._link = link
        self._clock = clock
        self._on_event = on_event
        self._ticket: Ticket | None = None
        """Of the latest dispatch; None until the gateway lets this brain lead."""
        self._taken = True
        """The latest dispatch was."""

    async def tell(self, tell: Tell) -> DeskOrder | None:
        """Let the gateway hear how the brain is, and what it has seen of feeders; what is asked of the fleet."""
        return (await self._link.ask(tell, Heard, within_s=LINK_S)).desk

    async def observed(self) -> Observed:
        """The field now."""
        return await self._link.ask(Observe(), Observed, within_s=LINK_S)

    async def hand(self, dispatch: Dispatch) -> None:
        """Hand a dispatch over; a gateway that has come back is asked first to let this brain lead."""
        reply = None if self._ticket is None else await self._handed(dispatch, self._ticket)
        if reply is None or (isinstance(reply, Refused) and reply.reasons[0].by == "lead"):
            led = await self._link.ask(Lead("brain"), Led, within_s=LINK_S)
            reply = await self._handed(dispatch, Ticket(led.token, 0, 0.0))
        if (taken := isinstance(reply, Taken)) is not self._taken:
            self._taken = taken
            why = "; ".join(reason.text for reason in reply.reasons) if isinstance(reply, Refused) else ""
            text = "the gateway takes plans again" if taken else f"the gateway does not take the plan: {why}"
            self._event(Severity.INFO if taken else Severity.ALARM, "handover", text)

    async def _handed(self, dispatch: Dispatch, last: Ticket) -> Taken | Refused:
        self._ticket = Ticket(last.token, last.seq + 1, dispatch.valid_until_s)
        reply = await self._link.ask(Hand(dispatch, self._ticket), object, within_s=LINK_S)
        if isinstance(reply, Taken | Refused):
            return reply
        raise LinkError(f"Hand: answered with {type(reply).__name__}")

    async def drain(self, store: Store) -> bool:
        """Take the gateway's records for the database, as far as it has room; whether none will come any more."""
        while store.has_room:
            after = store.position(GATEWAY)
            found = await self._link.ask(Drain(after, ENTRIES_MAX), Records, within_s=LINK_S)
            lost = found.first - (after.place if found.origin == after.origin else 0)
            if lost:
                text = f"{lost} records of the gateway came too late for the database: they are in its journal files"
                self._event(Severity.ALARM, "records-late", text)
            store.records(GATEWAY, found)
            if not found.left:
                return found.closed
        return False

    def _event(self, severity: Severity, kind: str, text: str) -> None:
        self._on_event(Event(self._clock.utc(), severity, "brain", kind, text))
