"""The utility's system as the site file names it: its source and its outlet, each behind the link it needs."""

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from derms.domain.alarm import Event, Severity
from derms.domain.arrays import FloatArray
from derms.domain.mode import Mode
from derms.errors import ConfigError, Problem
from derms.ports import Clock, FieldOptions, PlanOutlet, ScadaKit, ScadaLink, ScadaSource
from derms.scada.file import FileOutlet, FileScada
from derms.scada.meter import MeterScada
from derms.scada.publish import Publisher
from derms.scada.rest import Access, RestOutlet, RestScada
from derms.scada.source import LinkedScada
from derms.service.config import Site
from derms.service.series import read_history

Past = tuple[Sequence[datetime], FloatArray]
"""Ends of intervals (UTC) and mean net load over them [W]."""
Modbus = Callable[[FieldOptions, random.Random], ScadaKit]
"""Opens the utility's system over Modbus; asked only where the site needs it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """What sources and outlets need besides the site."""

    clock: Clock
    chance: random.Random
    on_event: Callable[[Event], None]
    modbus: Modbus


def open_source(site: Site, wiring: Wiring) -> ScadaSource:
    """The source of the site; raises ConfigError when its token is not in the environment."""
    meter = None if site.net_load_id is None else MeterScada(site.fleet.index[site.net_load_id])
    link = _link(site, wiring)
    if link is None:
        assert meter is not None, "load_site finds a meter where no point tells net load"
        return meter
    scada = site.scada
    return LinkedScada(
        link,
        scada.points,
        scada.qualities,
        scada.limits,
        clock=wiring.clock,
        on_event=wiring.on_event,
        meter=meter,
    )


def past_of(site: Site) -> Past:
    """Net load before now, as the site has it on record."""
    return ([], np.zeros(0)) if site.history is None else read_history(site.history)


def open_publisher(site: Site, wiring: Wiring) -> Publisher | None:
    """Publishes to where the site says, None for nowhere; raises ConfigError as the source does."""
    if str(site.scada.publish).startswith("modbus:") and site.mode is not Mode.AUTO:
        text = "in observe mode nothing is written over Modbus: the plan is not published"
        wiring.on_event(Event(wiring.clock.utc(), Severity.INFO, "scada", "publish-off", text))
        return None
    outlet = _outlet(site, wiring)
    return Publisher(outlet, mode=site.mode, clock=wiring.clock, on_event=wiring.on_event) if outlet else None


def _link(site: Site, wiring: Wiring) -> ScadaLink | None:
    scada = site.scada
    match scada.source:
        case "file":
            return FileScada(scada.path or Path(), scada.points, timeout_s=scada.timeout_s)
        case "rest":
            return RestScada(_access(site, scada.url or ""), scada.points)
        case "modbus":
            return _modbus(site, wiring).source(scada.url or "", scada.points)
    return None


def _outlet(site: Site, wiring: Wiring) -> PlanOutlet | None:
    scada = site.scada
    match scada.publish:
        case None:
            return None
        case Path() as path:
            return FileOutlet(path, timeout_s=scada.timeout_s)
        case str() as url if url.startswith("modbus:"):
            return _modbus(site, wiring).outlet(url)
        case url:
            return RestOutlet(_access(site, url), scada.publish_method)


def _modbus(site: Site, wiring: Wiring) -> ScadaKit:
    options = FieldOptions(
        timeout_s=site.scada.timeout_s,
        connect_timeout_s=site.field.connect_timeout_s,
        read_only=site.mode is not Mode.AUTO,
    )
    return wiring.modbus(options, wiring.chance)


def _access(site: Site, url: str) -> Access:
    scada = site.scada
    token = ""
    if scada.token_variable:
        token = os.environ.get(scada.token_variable, "")
        if not token:
            wrong = f"the environment variable {scada.token_variable} is not set"
            raise ConfigError([Problem("environment", "token_variable of [scada]", wrong, "set it to the token")])
    return Access(url=url, timeout_s=scada.timeout_s, token=token, ca=scada.ca)
