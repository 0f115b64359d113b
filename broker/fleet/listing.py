"""`cxr-broker fleet`: the devices and how each stands, for people and for scripts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec

from broker.fleet.standing import Fleet, Member


def standing_of(member: Member, now: datetime) -> str:
    """Return how a device stands: ok, waiting (its file was not used yet), late (too late now: revoke it), expired, revoked."""
    used = member.used
    if member.revoked or used is None:
        return "revoked"
    if used.until <= now:
        return "expired"
    if used.by == "renewal":
        return "ok"
    return "late" if member.use_before < now else "waiting"


def fleet_lines(fleet: Fleet, now: datetime, *, as_json: bool) -> Iterator[str]:
    """Yield a line for each device, by facility and name."""
    rows = [_row(one, fleet, now) for one in sorted(fleet.members.values(), key=lambda one: (one.facility, one.device))]
    if as_json:
        yield from (msgspec.json.encode(row).decode() for row in rows)
        return
    if not rows:
        yield "No device was enrolled yet: cxr-broker enroll DEVICE --facility NAME --dir DIR --out FOLDER"
        return
    names = ("device", "facility", "standing", "enrolled", "renewed", "expires", "revoked")
    table = [names, *(tuple(str(row[name] or "-")[:32] for name in names) for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(names))]
    for row in table:
        yield "  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip()


def _row(member: Member, fleet: Fleet, now: datetime) -> dict[str, Any]:
    used = member.used
    renewed = used.made if used is not None and used.by == "renewal" else None
    return {
        "device": member.device,
        "facility": member.facility,
        "standing": standing_of(member, now),
        "enrolled": _day(member.enrolled),
        "use_before": _day(member.use_before),
        "renewed": _day(renewed),
        "expires": _day(used.until if used is not None else None),
        "revoked": _day(member.revoked),
        "key_id": fleet.key_of.get(member.facility),
    }


def _day(moment: datetime | None) -> str | None:
    return None if moment is None else moment.date().isoformat()
