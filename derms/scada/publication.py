"""The published plan as JSON and as CSV: UTC times, kW, net load + = import, batteries + = injection."""

import csv
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO

from derms.domain.scada import Publication

CSV_COLUMNS = (
    "plan", "status", "mode", "source", "published_utc", "valid_until_utc", "start_utc", "end_utc", "net_load_kw",
    "battery_kw", "curtail_kw",
)  # fmt: skip


def as_json(publication: Publication) -> bytes:
    """One JSON object with a list of steps."""
    plan = publication.plan
    steps = [
        {"start": start, "end": end, "net_load_kw": net_kw, "battery_kw": battery_kw, "curtail_kw": curtail_kw}
        for start, end, net_kw, battery_kw, curtail_kw in _steps(publication)
    ]
    body = {
        "plan": plan.id,
        "status": publication.status.name.lower(),
        "mode": publication.mode,
        "source": plan.source,
        "reason": plan.reason,
        "made_at": utc_text(plan.made_at),
        "published_at": utc_text(publication.published_at),
        "valid_until": utc_text(publication.valid_until),
        "steps": steps,
    }
    return json.dumps(body, indent=1, allow_nan=False).encode() + b"\n"


def as_csv(publication: Publication) -> bytes:
    """A row per step; what holds for the whole plan stands in every row."""
    plan, out = publication.plan, StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(CSV_COLUMNS)
    whole = [plan.id, publication.status.name.lower(), publication.mode, plan.source]
    whole += [utc_text(publication.published_at), utc_text(publication.valid_until)]
    writer.writerows([*whole, *step] for step in _steps(publication))
    return out.getvalue().encode()


def _steps(publication: Publication) -> Iterator[tuple[str, str, float, float, float]]:
    plan = publication.plan
    columns = (plan.net_load_w, plan.battery_w, plan.curtail_w)
    edges = [plan.start + timedelta(seconds=edge_s) for edge_s in plan.edges_s.tolist()]
    for start, end, *powers_w in zip(edges[:-1], edges[1:], *(column.tolist() for column in columns), strict=True):
        net_kw, battery_kw, curtail_kw = (round(p_w / 1e3, 3) for p_w in powers_w)
        yield utc_text(start), utc_text(end), net_kw, battery_kw, curtail_kw


def utc_text(at: datetime) -> str:
    """ISO 8601 in UTC, to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
