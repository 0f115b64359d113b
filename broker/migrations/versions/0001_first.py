"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_serial = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_not_result = sa.text("kind <> 'result'")
_is_void = sa.text("voids IS NOT NULL")


def upgrade() -> None:
    """Create everything."""
    op.create_table(
        "outcomes",
        sa.Column("id", _serial, primary_key=True, autoincrement=True),
        sa.Column("device", sa.String(64), nullable=False),
        sa.Column("epoch", sa.String(32), nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("facility", sa.String(64), nullable=False),
        sa.Column("label", sa.String(32)),
        sa.Column("abstained", sa.Boolean),
        sa.Column("voids", sa.BigInteger),
        sa.Column("exam_date", sa.String(10)),
        sa.Column("recorded_at", sa.String(27), nullable=False),
        sa.Column("received_ms", sa.BigInteger, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("device", "epoch", "seq", name="uq_outcomes_key"),
    )
    op.create_index("ix_outcomes_device", "outcomes", ["device", "id"])
    op.create_index("ix_outcomes_kind", "outcomes", ["kind", "id"], sqlite_where=_not_result, postgresql_where=_not_result)
    op.create_index("ix_outcomes_voids", "outcomes", ["device", "epoch", "voids"], sqlite_where=_is_void, postgresql_where=_is_void)
    op.create_table(
        "streams",
        sa.Column("device", sa.String(64), primary_key=True),
        sa.Column("epoch", sa.String(32), primary_key=True),
        sa.Column("through", sa.BigInteger, nullable=False),
        sa.Column("last_seq", sa.BigInteger, nullable=False),
        sa.Column("closed", sa.Boolean, nullable=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("results", "abstained", "refusals", "failures", "voids")),
    )
    op.create_table(
        "devices",
        sa.Column("device", sa.String(64), primary_key=True),
        sa.Column("seen_ms", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(8)),
        sa.Column("status", sa.LargeBinary),
        sa.Column("status_ms", sa.BigInteger),
    )
    op.create_table(
        "quarantine",
        sa.Column("id", _serial, primary_key=True, autoincrement=True),
        sa.Column("digest", sa.String(64), nullable=False, unique=True),
        sa.Column("times", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.String(48), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("received_ms", sa.BigInteger, nullable=False),
        sa.Column("device", sa.String(64)),
        sa.Column("epoch", sa.String(32)),
        sa.Column("seq", sa.BigInteger),
        sa.Column("delivered", sa.Boolean, nullable=False),
    )
    op.create_index("ix_quarantine_key", "quarantine", ["device", "epoch", "seq"])
    revisions = op.create_table(
        "revision",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(revisions, [{"id": 1, "number": 0}])
