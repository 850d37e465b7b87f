"""A clock that tests move, points of a small feeder, and a source over a link with all its events."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from derms.domain.alarm import Event
from derms.domain.grid import SwitchState
from derms.domain.mode import Mode
from derms.domain.plan import Plan, PlanSource
from derms.domain.quality import Quality
from derms.domain.scada import PointKind, Publication, PublicationStatus, ScadaPoint, ScadaReading
from derms.ports import ScadaLink
from derms.scada.intake import Limits, QualityMap
from derms.scada.source import LinkedScada
from tests.control.values import snapshot_of

START = datetime(2026, 4, 15, 19, 0, tzinfo=UTC)
STALE_S = 60.0

LOAD = ScadaPoint(
    id="load",
    kind=PointKind.NET_LOAD,
    element="system",
    where="load",
    scale=1e3,
    low=-360e6,
    high=360e6,
    floor=7200.0,
)
SW1 = ScadaPoint(id="sw1", kind=PointKind.SWITCH, element="line.sw1", where="sw1")
SW7 = ScadaPoint(id="sw7", kind=PointKind.SWITCH, element="line.sw7", where="sw7", normal=SwitchState.OPEN)
TAP = ScadaPoint(id="tap", kind=PointKind.TAP, element="regcontrol.creg1a", where="tap", low=-33.0, high=33.0)


@dataclass
class HandClock:
    """Time stands still until a test moves it; the wall clock may jump alone."""

    now: datetime = START
    now_s: float = 1000.0

    def utc(self) -> datetime:
        return self.now

    def monotonic_s(self) -> float:
        return self.now_s

    def pass_(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.now_s += seconds


@dataclass
class Room:
    """A source over a link, and what it said."""

    source: LinkedScada
    clock: HandClock
    events: list[Event] = field(default_factory=list)

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def read(self) -> ScadaReading:
        return self.source.reading(snapshot_of([0.0], at=self.clock.now))

    def poll(self, after_s: float = 10.0) -> ScadaReading:
        """Let time pass, poll, and read."""
        self.clock.pass_(after_s)
        asyncio.run(self.source.poll())
        return self.read()

    def quality(self, point: str = "load") -> Quality:
        return self.read().values[point].quality


def room(link: ScadaLink, points: Sequence[ScadaPoint], *, qualities: QualityMap | None = None) -> Room:
    events: list[Event] = []
    clock = HandClock()
    source = LinkedScada(
        link,
        points,
        qualities or QualityMap(),
        Limits(STALE_S, ahead_max_s=10.0),
        clock=clock,
        on_event=events.append,
        meter=None,
    )
    return Room(source, clock, events)


def write_at(path: Path, text: str, at: datetime) -> None:
    """Write a file as somebody does whose clock says so."""
    path.write_text(text)
    os.utime(path, (at.timestamp(), at.timestamp()))


def plan_of(net_load_w: Sequence[float], *, plan_id: int = 7, start: datetime = START) -> Plan:
    """A plan in which the batteries give a tenth of the net load."""
    net_w = np.array(net_load_w, dtype=np.float64)
    return Plan(
        id=plan_id,
        made_at=start,
        start=start,
        hours=np.full(len(net_w), 0.25),
        battery_w=0.1 * net_w,
        curtail_w=np.zeros_like(net_w),
        energy_wh=np.zeros_like(net_w),
        net_load_w=net_w,
        source=PlanSource.OPTIMIZER,
        reason="",
        solver="test",
        iterations=1,
        objective=0.0,
    )


def publication_of(net_load_w: Sequence[float], *, plan_id: int = 7) -> Publication:
    plan = plan_of(net_load_w, plan_id=plan_id)
    return Publication(plan, Mode.AUTO, START + timedelta(seconds=1800), PublicationStatus.VALID, START)
