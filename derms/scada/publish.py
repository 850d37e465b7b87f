"""Publishing the plan: the newest one until it is out, and the word that it no longer holds; never in anybody's way."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from derms.domain.alarm import Event, Severity
from derms.domain.mode import Mode
from derms.domain.plan import Plan
from derms.domain.scada import Publication, PublicationStatus
from derms.errors import FieldError, ScadaError
from derms.ports import Clock, PlanOutlet

WITHDRAW_S = 5.0
"""For the word that the plan no longer holds; without it readers go by its validity."""


class Publisher:
    """Takes plans at any time, and sends when its job is due; what did not come through is sent again then."""

    def __init__(self, outlet: PlanOutlet, *, mode: Mode, clock: Clock, on_event: Callable[[Event], None]) -> None:
        self._outlet = outlet
        self._mode = mode
        self._clock = clock
        self._on_event = on_event
        self._current: Publication | None = None
        self._due = False
        self._failing = False

    def offer(self, plan: Plan, valid_until: datetime) -> None:
        """Take a plan; one that was not out yet is superseded."""
        now = self._clock.utc()
        self._current = Publication(plan, self._mode, valid_until, PublicationStatus.VALID, now)
        self._due = True

    async def send(self) -> None:
        """Job: send what is due, and say of a plan that nobody replaced that it has expired."""
        current = self._current
        if current and current.status is PublicationStatus.VALID and self._clock.utc() >= current.valid_until:
            self._ended(current, PublicationStatus.EXPIRED)
        if self._due and self._current:
            await self._attempt(self._current)

    async def withdraw(self) -> None:
        """Say that the plan no longer holds because the service ends; tried once, and not for long."""
        if not self._current:
            return
        try:
            async with asyncio.timeout(WITHDRAW_S):
                await self._attempt(self._ended(self._current, PublicationStatus.WITHDRAWN))
        except TimeoutError:
            self._note(failing=True, text=f"the plan cannot be withdrawn: no end within {WITHDRAW_S:g} s")

    def _ended(self, current: Publication, status: PublicationStatus) -> Publication:
        self._current = replace(current, status=status, published_at=self._clock.utc())
        self._due = True
        return self._current

    async def _attempt(self, publication: Publication) -> None:
        try:
            await self._outlet.send(publication)
        except (ScadaError, FieldError) as error:
            self._note(failing=True, text=f"the plan cannot be published: {error}")
        else:
            self._due = self._current is not publication
            self._note(failing=False, text="plans are published again")

    def _note(self, *, failing: bool, text: str) -> None:
        if failing is not self._failing:
            self._failing = failing
            severity = Severity.WARNING if failing else Severity.INFO
            kind = "publish-failed" if failing else "publish-back"
            self._on_event(Event(self._clock.utc(), severity, "scada", kind, text))
