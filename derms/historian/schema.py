"""The tables of the historian, for any SQL database that SQLAlchemy speaks to.

Times are whole microseconds since 1970 UTC; values in SI units with the signs of the house; a value that is missing
is NULL with a quality, never 0.
"""

from datetime import UTC, datetime, timedelta

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

metadata = MetaData()

POINTS = (
    *("p_w", "q_var", "v_pu", "soc_frac"),
    *("p_a_w", "p_b_w", "p_c_w", "q_a_var", "q_b_var", "q_c_var", "v_a_pu", "v_b_pu", "v_c_pu"),
)
"""What is kept of every device: the columns of a snapshot, those with phases as one point per phase."""

devices = Table(
    "devices",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("device", String(64), nullable=False, unique=True),
)

samples = Table(
    "samples",
    metadata,
    Column("device_id", Integer, ForeignKey("devices.id"), primary_key=True),
    Column("at_us", BigInteger, primary_key=True),
    Column("quality", SmallInteger, nullable=False),
    *(Column(point, Float(53)) for point in POINTS),
    sqlite_with_rowid=False,
)
"""Device before time in the key: one device's history is read in one piece. Its points side by side: a snapshot
touches one page per device, not one per point."""

decisions = Table(
    "decisions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at_us", BigInteger, nullable=False, index=True),
    Column("plan_id", Integer, nullable=False),
    Column("source", String(32), nullable=False),
    Column("body", LargeBinary, nullable=False),
)
"""Plans with all that they were made from: `body` is what `derms.historian.replay` packs."""

forecasts = Table(
    "forecasts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("made_us", BigInteger, nullable=False, index=True),
    Column("body", LargeBinary, nullable=False),
)
"""Every forecast with the time it was made; `body` is what `derms.historian.replay` packs."""

outcomes = Table(
    "outcomes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("device", String(64), nullable=False),
    Column("quantity", String(16), nullable=False),
    Column("plan_id", Integer, nullable=False),
    Column("wanted_w", Float(53)),
    Column("value_w", Float(53)),
    Column("is_release", Boolean, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("detail", Text, nullable=False),
    Column("ended_us", BigInteger, nullable=False),
    Index("outcomes_by_device", "device", "ended_us"),
    Index("outcomes_by_time", "ended_us"),
)
"""`detail` holds the fields of the outcome as JSON."""

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at_us", BigInteger, nullable=False, index=True),
    Column("severity", String(16), nullable=False),
    Column("source", String(64), nullable=False),
    Column("kind", String(64), nullable=False),
    Column("text", Text, nullable=False),
)

drains = Table(
    "drains",
    metadata,
    Column("gateway", String(64), primary_key=True),
    Column("origin", String(64), nullable=False),
    Column("place", BigInteger, nullable=False),
)
"""How far the journal of each gateway has been taken; written with the entries, so that each of them is here once."""

memberships = Table(
    "memberships",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("der", String(64), nullable=False, index=True),
    Column("feeder", String(64), nullable=False),
    Column("since_us", BigInteger, nullable=False),
)
"""Which feeder each DER is on from a time on; an empty feeder while no source reaches it."""

watched_hours = Table(
    "watched_hours",
    metadata,
    Column("feeder", String(64), primary_key=True),
    Column("hour", Integer, primary_key=True),
    Column("model", String(64), nullable=False),
    Column("sums", Text, nullable=False),
)
"""What was counted of a feeder for its scorecard, by hours since 1970, with the digest of its model: `sums` holds the
fields of `derms.control.scorecard.Hour` as JSON."""


def to_us(at: datetime) -> int:
    """Microseconds of a timezone-aware time; TypeError for a naive one."""
    return (at - EPOCH) // MICROSECOND


def from_us(at_us: int) -> datetime:
    """The time (UTC) of microseconds."""
    return EPOCH + at_us * MICROSECOND
