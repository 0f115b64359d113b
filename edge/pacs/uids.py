"""UIDs that are the same whenever and however often an answer is made, so that a PACS knows what it is sent again."""

from __future__ import annotations

import uuid

_OURS = uuid.UUID("6b2f9f6e-60cb-4d7c-9a4e-0c1d6f6a5d17")


def derived_uid(*parts: object) -> str:
    """Return the UID (2.25, after ISO/IEC 9834-8) that belongs to these values, in this order."""
    return f"2.25.{uuid.uuid5(_OURS, '/'.join(map(str, parts))).int}"
