"""The one table of what a profile may say; the loader, the JSON Schema for editors and the template all follow it.

`python -m drivers.profiles.schema` prints the JSON Schema, as `profile.schema.json` holds it.
"""

import json
from collections.abc import Mapping
from dataclasses import replace

from derms.domain.der import DeviceKind
from derms.domain.dispatch import Quantity
from derms.domain.telemetry import COLUMNS
from drivers.modbus.unit import MAX_READ, MAX_WRITE
from drivers.profiles.control import Per
from drivers.profiles.point import ORDERS, TYPES
from drivers.profiles.profile import Level, Speaks
from drivers.profiles.rules import Either, Flag, Many, Named, Number, Rule, Section, Word

TABLES = ("holding", "input")
RATINGS = ("p_rated_w", "s_rated_va", "energy_wh", "v_nominal_v")

ADDRESS = Number(meaning="protocol address of the first register, from 0", low=0, high=65535, whole=True, needed=True)
PLACE: Mapping[str, Rule] = {
    "address": ADDRESS,
    "table": Word(meaning="holding registers (FC3, the default) or input registers (FC4)", choices=TABLES),
}
REGISTER = Number(meaning="a register value as the device counts", low=-(2**63), high=2**64 - 1, whole=True)
FORM: Mapping[str, Rule] = {
    "type": Word(meaning="how the number is kept; uint16 when left out", choices=tuple(TYPES)),
    "order": Word(meaning="how the bytes of a 32-bit ABCD come; ABCD when left out", choices=ORDERS),
}
NUMBER: Mapping[str, Rule] = {
    **PLACE,
    **FORM,
    "scale": Number(meaning="what one register step is, in SI units; 1 when left out", low=1e-12, high=1e12),
    "offset": Number(meaning="added after scaling, in SI units", low=-1e12, high=1e12),
    "sign": Number(meaning="-1 where the device counts the other way than the house", low=-1, high=1, whole=True),
    "absent": Many(meaning="register values that mean that there is no value", of=REGISTER, low=1, high=8),
}
POINT = Section(meaning="a number in registers", keys=NUMBER)
ADDRESSES = Either(
    meaning="one address, or three where the column has phases a, b, c",
    needed=True,
    of=(ADDRESS, Many(meaning="one address per phase", of=ADDRESS, low=3, high=3)),
)
MEASURED = Section(
    meaning="where a column is measured",
    keys={
        **NUMBER,
        "address": ADDRESSES,
        "codes": Named(
            meaning="register values and the codes of ours that they stand for; others have no meaning",
            of=Number(meaning="our code", low=0, high=2**31, whole=True),
            numbers=True,
        ),
    },
)
LENGTH = Number(meaning="how many registers the text has", low=1, high=64, whole=True)
TEXT = Section(
    meaning="characters in registers, two in each", keys={**PLACE, "registers": replace(LENGTH, needed=True)}
)
WORD = Number(meaning="a register value", low=0, high=0xFFFF, whole=True)
CONTROL = Section(
    meaning="how the device takes one quantity",
    keys={
        "value": Section(meaning="registers that take the value", keys=NUMBER, needed=True),
        "per": Word(meaning="what the value counts: W, percent of the rating, or the rating", choices=tuple(Per)),
        "low": Number(meaning="least value that it takes, in what `per` counts and our sign; 0 it always takes"),
        "high": Number(meaning="greatest value that it takes, likewise"),
        "whole_steps": Flag(meaning="a value between two steps is refused, not rounded towards zero"),
        "held": Section(meaning="where the value is read back, where not from the same registers", keys=NUMBER),
        "enable": Section(
            meaning="register that puts the value in force, and hands control back",
            keys={
                "address": ADDRESS,
                "on": Number(meaning="in force; 1 when left out", low=0, high=0xFFFF, whole=True),
                "off": Number(meaning="handed back; 0 when left out", low=0, high=0xFFFF, whole=True),
                "first": Flag(meaning="it takes a value only while this is on"),
            },
        ),
        "release": Number(meaning="register value that hands control back, where nothing enables", whole=True),
        "timer": Section(meaning="dead-man time [s] after which the device is on its own", keys=NUMBER),
        "left": Section(meaning="what is left of that time [s]", keys=NUMBER),
    },
)
LINK = Section(
    meaning="what the device needs of its link, see drivers/modbus/quirks.py",
    keys={
        "in_flight": Number(meaning="requests that may wait for an answer at once", low=1, high=16, whole=True),
        "gap_s": Number(meaning="least pause after an answer [s]", low=0, high=60),
        "settle_s": Number(meaning="patience between connecting and the first request [s]", low=0, high=60),
        "timeout_s": Number(meaning="longest wait for one answer [s]", low=0.05, high=60),
        "registers_max": Number(meaning="longest read [registers]", low=1, high=MAX_READ, whole=True),
        "writes_max": Number(meaning="longest write [registers]", low=1, high=MAX_WRITE, whole=True),
        "zero_transaction": Flag(meaning="it answers transaction 0, whatever it is asked"),
        "answers_as": Number(meaning="unit id in its answers, if not its own", low=0, high=255, whole=True),
        "single_writes": Flag(meaning="it wants FC6 for a single register"),
    },
)
SUNSPEC = Section(
    meaning="departures from SunSpec, see drivers/sunspec/quirks.py",
    keys={
        "bases": Many(meaning="addresses at which the map may begin", of=ADDRESS, high=8),
        "sentinels": Named(
            meaning="further register values that mean `not implemented`, by SunSpec point type",
            of=Many(meaning="register values", of=REGISTER, high=8),
        ),
        "value_first": Flag(meaning="it refuses blocks: value, reversion, enable go in a write each"),
        "enable_again": Flag(meaning="it begins to count only when the enable point is written once more"),
        "refresh_value": Flag(meaning="its timer restarts only with the value"),
    },
)
MADE_BY = Either(meaning="a text, or registers that hold it", of=(Word(meaning="a text"), TEXT))
IDENTITY = Section(
    meaning="who the device is",
    keys={
        "manufacturer": MADE_BY,
        "model": MADE_BY,
        "version": MADE_BY,
        "serial": Section(
            meaning="the serial number: a text with `registers`, or a number with `type`",
            keys={**PLACE, **FORM, "registers": LENGTH},
        ),
        "proof": Many(
            meaning="register values that every device of the make has, and hardly any other",
            of=Section(meaning="a proof", keys={**PLACE, **FORM, "equals": replace(REGISTER, needed=True)}),
        ),
    },
)
PROFILE = Section(
    meaning="a make of device",
    keys={
        "profile": Word(
            meaning="its name, as in the file's name and the fleet file's column `driver`",
            pattern=r"[a-z0-9][a-z0-9-]{0,39}",
            needed=True,
        ),
        "title": Word(meaning="make and kind, for people", needed=True),
        "speaks": Word(
            meaning="sunspec: models that are discovered; registers: a map of the maker's own",
            choices=tuple(Speaks),
            needed=True,
        ),
        "kinds": Many(
            meaning="kinds of device that it may be in the fleet file",
            of=Word(meaning="a kind", choices=tuple(DeviceKind)),
            needed=True,
        ),
        "level": Word(meaning="level that the conformance suite has shown; bronze when left out", choices=tuple(Level)),
        "verified": Word(meaning="real devices and firmware that it was tried on; leave it out for none"),
        "unit": Number(
            meaning="Modbus unit where the fleet file leaves it empty; 1 when left out", low=0, high=255, whole=True
        ),
        "link": LINK,
        "sunspec": SUNSPEC,
        "identity": IDENTITY,
        "ratings": Named(
            meaning="what it is rated for [W, VA, Wh, V], as a number or where the device tells it",
            of=Either(meaning="a rating", of=(Number(meaning="a rating", low=0, high=1e12), POINT)),
            choices=RATINGS,
        ),
        "reads": Section(
            meaning="how points are gathered into requests",
            keys={
                "hole_max": Number(
                    meaning="registers between points that may be read along; 0 where holes cannot be read",
                    low=0,
                    high=MAX_READ,
                    whole=True,
                )
            },
        ),
        "telemetry": Named(
            meaning="what is measured, by column [SI]; DER power + = injection, meter power + = import",
            of=MEASURED,
            choices=COLUMNS,
        ),
        "controls": Named(meaning="what it takes", of=CONTROL, choices=tuple(Quantity)),
        "heartbeat": Section(
            meaning="register that the controller has to keep moving, from first to last and around",
            keys={
                "address": ADDRESS,
                "first": WORD,
                "last": WORD,
                "timeout_s": Number(meaning="after which the device is on its own [s]", low=1, high=86400),
                "echo": Section(meaning="the device's own heartbeat", keys=NUMBER),
            },
        ),
        "settings": Named(meaning="what engineers set in the device, by name, watched for drift", of=POINT),
    },
)


def json_schema() -> str:
    """The table as JSON Schema, for editors."""
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Profile of a device for the DER control room",
        **PROFILE.schema(),
    }
    return json.dumps(schema, indent=1) + "\n"


if __name__ == "__main__":
    print(json_schema(), end="")
