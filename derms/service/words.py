"""What the service says on its output: powers, events, and a line of status."""

import math
import os
import sys
from datetime import tzinfo
from typing import TYPE_CHECKING

from derms.domain.alarm import Event
from derms.domain.quality import Quality

if TYPE_CHECKING:
    from derms.service.brain import Brain


def say(text: str) -> None:
    """Print a line; that nobody reads or keeps it any more stops nothing."""
    try:
        print(text, flush=True)
    except OSError as error:
        if isinstance(error, BrokenPipeError):  # whoever read has left; a full disk may take the next line
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def kw(power_w: float) -> str:
    """A power for people; less than a watt is none."""
    value_kw = power_w / 1e3 if abs(power_w) >= 1.0 or math.isnan(power_w) else 0.0
    return f"{value_kw:,.0f} kW" if abs(value_kw) >= 100.0 else f"{value_kw:.3g} kW"


def event_line(event: Event, zone: tzinfo) -> str:
    """An event as one line, in local time."""
    return f"{event.at.astimezone(zone):%Y-%m-%d %H:%M:%S %Z} {event.severity:<7} {event.text}"


def status_line(brain: "Brain", alarms: int, zone: tzinfo) -> str:
    """Net load, plan, what is known of the feeder, devices and alarms in one line."""
    seen = brain.seen
    if seen is None:
        return "the gateway has not said anything yet"
    good = int((seen.snapshot.quality == Quality.GOOD).sum())
    load = f"{brain.net_load_w / 1e3:5.0f} kW" if math.isfinite(brain.net_load_w) else "unknown"
    plan = brain.decision.plan if brain.decision else None
    planned = f"plan {plan.net_load_w[0] / 1e3:5.0f} kW ({plan.source})" if plan else "no plan yet"
    feeder = str(brain.grid.summary) if brain.grid else "feeder unknown"
    return (
        f"{seen.snapshot.at.astimezone(zone):%H:%M} net load {load}, {planned}, {feeder}, "
        f"devices {good}/{len(seen.snapshot.quality)}, writes {seen.writes} ({seen.failed} failed), "
        f"alarms {seen.alarms + alarms}"
    )
