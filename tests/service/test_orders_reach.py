"""What people lay down reaches polls, alarms and the estimate of a running service."""

import asyncio
from pathlib import Path

import numpy as np

from derms.control.permissives import Substitute
from derms.domain.alarm import Event, Severity
from derms.domain.quality import Quality
from derms.domain.scope import Level, Scope
from derms.domain.tags import TagKind
from tests.service.test_service import Day, _day

BATTERY = Scope(Level.DEVICE, "bat01")


def test_a_scan_inhibit_ends_polling_and_an_alarm_inhibit_keeps_alarms_to_the_journal(tmp_path: Path) -> None:
    async def scenario(day: Day) -> None:
        await asyncio.sleep(60.0)
        orders, row = day.service.gateway.orders, day.service.site.fleet.index["bat01"]
        assert day.service.gateway.snapshot().quality[row] == Quality.GOOD
        scan = orders.hang(TagKind.SCAN_INHIBIT, BATTERY, "meter being changed", "anna")
        await asyncio.sleep(120.0)
        assert day.service.gateway.snapshot().quality[row] != Quality.GOOD
        orders.take_off(scan.number, "anna")  # type: ignore[union-attr]
        await asyncio.sleep(60.0)
        assert day.service.gateway.snapshot().quality[row] == Quality.GOOD
        orders.hang(TagKind.ALARM_INHIBIT, BATTERY, "known to be broken", "anna")
        alarms, journal = day.service.alarms, day.service.field.journal
        for device in ("bat01", "bat02"):
            text = f"{device} does not do what it is told"
            day.service.gateway.reconciler.on_event(Event(day.clock.utc(), Severity.ALARM, device, "told", text))
        assert day.service.alarms == alarms + 1
        assert ("told" in day.kinds("bat01"), "told" in day.kinds("bat02")) == (False, True)
        journal.commit()
        told = [each for each in journal.records("", 0, 1000).entries if isinstance(each, Event)]
        assert [each.source for each in told if each.kind == "told"] == ["bat01", "bat02"]

    _day(scenario, tmp_path)


def test_a_substituted_value_reaches_the_brain_and_no_guard(tmp_path: Path) -> None:
    async def scenario(day: Day) -> None:
        await asyncio.sleep(60.0)
        gateway, row = day.service.gateway, day.service.site.fleet.index["bat01"]
        until_s = day.clock.monotonic_s() + 3600.0
        gateway.orders.substitute(Substitute(row, "p_w", 1234.0, "anna", "meter is wrong", until_s), more_s=3600.0)
        await asyncio.sleep(120.0)
        seen = day.service.brain.seen
        assert seen is not None
        assert seen.snapshot.p_w[row] == 1234.0
        assert not np.isclose(gateway.snapshot().p_w[row], 1234.0)

    _day(scenario, tmp_path)
