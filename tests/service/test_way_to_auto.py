"""The way back to AUTO: a feeder that was taken down is watched, and promoted by what it has shown."""

import asyncio
from dataclasses import replace
from functools import reduce
from pathlib import Path

import pytest

from derms.control.modes import MARKS, ControlMode
from derms.control.scorecard import Hour
from derms.domain.refusal import Refused
from derms.domain.scope import Level, Scope
from tests.service.test_service import PACKAGE, Day, _day

FEEDER, BATTERIES = Scope(Level.FEEDER, PACKAGE.id), Scope(Level.GROUP, "battery")
FIRST_JUDGED_S = 3600.0 + 1300.0
"""Until the first forecasts of an hour ahead have been judged."""


def _in(day: Day, mode: ControlMode, scope: Scope = FEEDER) -> list[str]:
    """Ask for a mode; what speaks against it, by the first words of each reason."""
    found = day.service.gateway.orders.set_mode(scope, mode, "anna", "")
    return [reason.text.partition(":")[0] for reason in found.reasons] if isinstance(found, Refused) else []


def _days_before(day: Day) -> None:
    """Have it watched for eight days before, each hour like the last two together."""
    store = day.service.store
    store.flush()
    total = reduce(Hour.plus, store.watched_hours(PACKAGE.id, PACKAGE.digest))
    for ago in range(24, 9 * 24):
        store.watched(PACKAGE.id, PACKAGE.digest, replace(total, number=total.number - ago))
    store.flush()


@pytest.mark.slow
def test_a_feeder_that_was_taken_down_is_watched_and_is_auto_again_after_a_restart(tmp_path: Path) -> None:
    async def watched(day: Day) -> None:
        await asyncio.sleep(60.0)
        assert _in(day, ControlMode.SHADOW) == []
        await asyncio.sleep(FIRST_JUDGED_S)
        assert day.holding() == set()
        assert _in(day, ControlMode.AUTO) == ["hours in shadow or above", "plans made"]
        _days_before(day)

    async def promoted(day: Day) -> None:
        orders = day.service.gateway.orders
        assert _in(day, ControlMode.AUTO) == ["there is none"]
        await asyncio.sleep(400.0)
        card = orders.card(FEEDER)
        assert card is not None
        assert [mark.misses(card) for mark in MARKS] == [""] * len(MARKS)
        assert 0.0 <= day.clock.monotonic_s() - card.taken_s <= 60.0 + 5.0
        assert _in(day, ControlMode.SHADOW, BATTERIES) == []
        assert _in(day, ControlMode.AUTO) == []
        assert _in(day, ControlMode.AUTO, BATTERIES) == []  # by what its feeder has shown
        await asyncio.sleep(310.0)
        assert "bat01" in day.holding()

    _day(watched, tmp_path)
    _day(promoted, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "counts"), [("off", False), ("shadow", True), ("advise", True), ("auto", True)])
def test_hours_count_in_every_mode_but_off(mode: str, counts: bool, tmp_path: Path) -> None:
    async def scenario(day: Day) -> None:
        assert _in(day, ControlMode(mode)) == []
        await asyncio.sleep(330.0)
        card = day.service.gateway.orders.card(FEEDER)
        assert (card is not None) is counts
        assert card is None or (card.shadow_h > 0.05 and card.plans == 2.0)

    _day(scenario, tmp_path)
