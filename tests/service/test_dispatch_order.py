"""Dispatches arrive in any order: only newer ones of the brain that leads are followed."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from derms.control.authority import Ticket
from derms.domain.dispatch import Dispatch
from derms.domain.refusal import Refused
from derms.domain.settings import DispatchSettings
from derms.link.messages import Hand, Lead, Taken
from derms.service.gateway_desk import GatewayDesk
from tests.control.values import NOON, fleet_of

NOW_S = 100.0


class _Still:
    def monotonic_s(self) -> float:
        return NOW_S

    def utc(self) -> datetime:
        return NOON


def _dispatch(plan_id: int) -> Dispatch:
    values_w = np.zeros((1, 2))
    return Dispatch(plan_id, NOON, NOW_S + 900.0, NOW_S + np.array([0.0, 600.0]), values_w, values_w)


def _desk(adopt: Callable[[Dispatch], None]) -> GatewayDesk:
    site = cast(Any, SimpleNamespace(fleet=fleet_of(1), dispatch=DispatchSettings()))
    gateway, journal = cast(Any, SimpleNamespace(adopt=adopt)), cast(Any, SimpleNamespace(token=3))
    return GatewayDesk(site, gateway, cast(Any, None), journal, _Still(), lambda: 0, lambda event: None)


def test_a_dispatch_that_was_superseded_on_its_way_and_one_of_a_brain_that_led_before_are_not_followed() -> None:
    async def main() -> None:
        adopted: list[int] = []
        desk = _desk(lambda dispatch: adopted.append(dispatch.plan_id))
        before = (await desk.lead(Lead("brain"), "ann")).token
        token = (await desk.lead(Lead("brain"), "ann")).token
        for seq in (2, 1, 2, 3):
            reply = await desk.hand(Hand(_dispatch(seq), Ticket(token, seq, NOW_S + 900.0)), "ann")
            assert isinstance(reply, Taken)
        assert adopted == [2, 3]
        reply = await desk.hand(Hand(_dispatch(4), Ticket(before, 4, NOW_S + 900.0)), "ann")
        assert isinstance(reply, Refused)
        assert [reason.by for reason in reply.reasons] == ["token"]
        assert adopted == [2, 3]

    asyncio.run(main())
