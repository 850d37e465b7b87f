"""People in a simulation: operators who stop devices, let them in again, and set batteries by hand, over the link.

What they were told is laid down in `Facts.stops` and `Facts.by_hand`, which the checks hold against the truth.
"""

import asyncio
import random

from derms.control.stopping import How
from derms.domain.dispatch import Quantity
from derms.domain.refusal import Refused
from derms.domain.scope import Level, Scope
from derms.errors import LinkError
from derms.link.asking import Reply
from derms.link.orders import CommandSelected, Done, OperateCommand, SelectCommand
from derms.link.stops import StopRelease, StopReply, StopRequest, StopStatus
from derms.ports import Clock
from tests.sim.link import Exchange, SimLink
from tests.sim.oracle import ByHand, Facts, Stop
from tests.sim.schedule import FEEDER, PEOPLE, Mishap

HOWS = (How.NO_EXPORT, How.NO_FLOW, How.CEASE, How.RELEASE)
FIRST, SECOND = "operator", "second"
"""The two who release a stop."""
WITHIN_S = 5.0
AGAIN_S = 2.0
SECOND_S = 25.0
"""After the first the second comes to release a stop: time in which nothing is let in yet."""
ANOTHER_TRY_S = 20.0
"""After a refusal of a value by hand."""


class People:
    """Operators at their screens; see the module's text."""

    def __init__(self, exchange: Exchange, clock: Clock, chance: random.Random, facts: Facts, feeder: str) -> None:
        self._links = {name: SimLink(exchange, clock, random.Random(chance.random()), name) for name in (FIRST, SECOND)}
        self._facts = facts
        self._feeder = feeder
        self._stops: dict[Mishap, Stop] = {}

    async def stop(self, mishap: Mishap) -> None:
        """Stop a device or the feeder, and ask until it is answered."""
        facts, whom = self._facts, mishap.target.removeprefix(PEOPLE)
        everything = whom == FEEDER
        scope = Scope(Level.FEEDER, self._feeder) if everything else Scope(Level.DEVICE, whom)
        devices = frozenset(it.id for it in facts.fleet.devices if it.is_der and (everything or it.id == whom))
        how = HOWS[int(mishap.value) % len(HOWS)]
        facts.stops.append(stop := Stop(how, devices, facts.now_s()))
        reply = await self._insist(FIRST, StopRequest(f"{mishap.start_s}", how, scope, immediate=True), StopReply)
        if reply.refused is not None or not reply.stops:
            stop.over_s = stop.let_in_s = facts.now_s()
            facts.story.tell(f"operator: {how} of {scope} is refused: {reply.refused}")
            return
        stop.given_s, stop.number = facts.now_s(), reply.stops[0].number
        self._stops[mishap] = stop
        facts.story.tell(f"operator: {how} of {scope} is given as stop {stop.number}")

    async def release(self, mishap: Mishap) -> None:
        """Let in again: two people, or one who breaks the glass."""
        stop = self._stops.pop(mishap, None)
        if stop is None:
            return
        alone = "nobody else is there" if int(mishap.value) >= len(HOWS) else ""
        people = (FIRST,) if alone else (FIRST, SECOND)
        while await self._latched(stop):
            for person in people:
                if person == people[-1]:
                    await asyncio.sleep(0.0 if alone else SECOND_S)
                    stop.over_s = min(stop.over_s, self._facts.now_s())
                await self._insist(person, StopRelease(stop.number, broken_glass=alone), StopReply)
            await asyncio.sleep(AGAIN_S)
        stop.let_in_s = self._facts.now_s()
        self._facts.story.tell(f"operator: stop {stop.number} is released")

    async def set_by_hand(self, mishap: Mishap) -> None:
        """Have a battery at a part of its rating until the end of the mishap, as soon as that is accepted."""
        facts, device = self._facts, mishap.target.removeprefix(PEOPLE)
        value_w = float(round(mishap.value * facts.device(device).p_rated_w))
        while (left_s := mishap.end_s - facts.now_s()) > ANOTHER_TRY_S:
            hand = ByHand(device, value_w, facts.now_s(), facts.now_s() + left_s)
            asked = SelectCommand(Scope(Level.DEVICE, device), Quantity.P_SET, value_w, left_s)
            if await self._operated(hand, asked):
                return
            await asyncio.sleep(ANOTHER_TRY_S)

    async def _operated(self, hand: ByHand, asked: SelectCommand) -> bool:
        """Select and operate; False when that was refused, and may be tried again."""
        facts, link = self._facts, self._links[FIRST]
        try:
            selected = await link.ask(asked, object, within_s=WITHIN_S)
        except LinkError:
            return False
        if not isinstance(selected, CommandSelected):
            return False
        facts.by_hand.append(hand)
        try:
            done = await link.ask(OperateCommand(selected.number), object, within_s=WITHIN_S)
        except LinkError as error:
            facts.story.tell(f"operator: {hand.value_w:.0f} W for {hand.device}, without an answer: {error}")
            return True
        if isinstance(done, Refused):
            facts.by_hand.remove(hand)
            return False
        assert isinstance(done, Done)
        hand.given_s = facts.now_s()
        facts.story.tell(f"operator: sets {hand.device} to {hand.value_w:.0f} W by hand")
        return True

    async def _latched(self, stop: Stop) -> bool:
        reply = await self._insist(FIRST, StopStatus(), StopReply)
        return any(it.number == stop.number and it.latched for it in reply.stops)

    async def _insist(self, person: str, request: object, kind: type[Reply]) -> Reply:
        """Ask until there is an answer."""
        while True:
            try:
                return await self._links[person].ask(request, kind, within_s=WITHIN_S)
            except LinkError:
                await asyncio.sleep(AGAIN_S)
