"""Manifests as text: the few shapes of TOML that they need, and what the generator and the import write alike."""

import json
from collections.abc import Iterator

from derms.domain.grid import Between, VoltageLimits

METER_AGE_MAX_S = 60.0
CONTROL_AGE_MAX_S = 300.0
"""Of taps and capacitor states: an integrity scan of the utility's system comes at least this often."""
SWITCH_AGE_MAX_S = 900.0
SIGMA_FRAC = 0.005


class Blank:
    """A value that people must fill in."""


Value = str | float | Blank


def table(name: str, comment: str = "", /, **fields: Value) -> Iterator[str]:
    """One table of a list of tables, with a comment above it."""
    yield f"\n# {comment}\n[[{name}]]" if comment else f"\n[[{name}]]"
    yield from pairs(**fields)


def pairs(**fields: Value) -> Iterator[str]:
    """Fields, one per line."""
    for key, value in fields.items():
        if isinstance(value, Blank):
            yield f'{key} = ""  # fill in'
        else:
            yield f"{key} = {json.dumps(value) if isinstance(value, str) else value}"


def limit_table(limit: VoltageLimits) -> Iterator[str]:
    """A voltage class; between phase and neutral is not said."""
    between = {} if limit.between is Between.NEUTRAL else {"between": limit.between.value}
    yield from table(
        "limit", v_base_max_v=limit.v_base_max_v, v_min_pu=limit.v_min_pu, v_max_pu=limit.v_max_pu, **between
    )


def meter_table(meter: str, kind: str, place: dict[str, Value]) -> Iterator[str]:
    """A meter or a voltage sensor."""
    yield from table("meter", id=meter, kind=kind, **place, sigma_frac=SIGMA_FRAC, age_max_s=METER_AGE_MAX_S)
