"""The tables of the centre. `migrations/` creates them; a test holds the two against each other.

Times are milliseconds since 1970 UTC by the centre's clock, `recorded_at` is the device's own. A payload is kept as it arrived.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData()

_Serial = BigInteger().with_variant(Integer, "sqlite")

outcomes = Table(
    "outcomes",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),  # the order of arrival
    Column("device", String(64), nullable=False),
    Column("epoch", String(32), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("kind", String(8), nullable=False),
    Column("facility", String(64), nullable=False),
    Column("label", String(32)),
    Column("abstained", Boolean),
    Column("voids", BigInteger),
    Column("exam_date", String(10)),
    Column("recorded_at", String(27), nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    UniqueConstraint("device", "epoch", "seq", name="uq_outcomes_key"),
    Index("ix_outcomes_device", "device", "id"),
    # Nearly all are results, and a page of those is found from the newest end; only the rest needs an index.
    Index("ix_outcomes_kind", "kind", "id", sqlite_where=text("kind <> 'result'"), postgresql_where=text("kind <> 'result'")),
    Index(
        "ix_outcomes_voids",
        "device",
        "epoch",
        "voids",
        sqlite_where=text("voids IS NOT NULL"),
        postgresql_where=text("voids IS NOT NULL"),
    ),
)

streams = Table(
    "streams",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("epoch", String(32), primary_key=True),
    Column("through", BigInteger, nullable=False),  # the contiguous watermark: start-up reads only what is beyond it
    Column("last_seq", BigInteger, nullable=False),  # the highest seq that the device has spoken of
    Column("closed", Boolean, nullable=False),
    Column("results", BigInteger, nullable=False),  # abstained ones included
    Column("abstained", BigInteger, nullable=False),
    Column("refusals", BigInteger, nullable=False),
    Column("failures", BigInteger, nullable=False),
    Column("voids", BigInteger, nullable=False),
)

devices = Table(
    "devices",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("seen_ms", BigInteger, nullable=False),
    Column("state", String(8)),
    Column("status", LargeBinary),
    Column("status_ms", BigInteger),
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("digest", String(64), nullable=False, unique=True),  # of topic and payload: a repeat only counts up `times`
    Column("times", BigInteger, nullable=False),
    Column("reason", String(48), nullable=False),
    Column("detail", Text, nullable=False),
    Column("topic", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Column("device", String(64)),
    Column("epoch", String(32)),
    Column("seq", BigInteger),
    Column("delivered", Boolean, nullable=False),  # the device was told to stop sending this seq
    Index("ix_quarantine_key", "device", "epoch", "seq"),
)

revision = Table(
    "revision",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("number", BigInteger, nullable=False),  # counts commits, so that a page can ask "anything new?"
)
