"""Which devices are to be enrolled: one from the command line, or a table of them. All of it is checked before anything is made."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from broker.errors import AuthorityError
from broker.fleet.authority import RESERVED
from broker.fleet.standing import Fleet
from edge.contract.types import DeviceId, FacilityId

MOST_ROWS = 2000
_COLUMNS = {"device", "facility"}


@dataclass(frozen=True)
class Wanted:
    """A device that is to be enrolled, and where that stands, for people."""

    device: str
    facility: str
    place: str = ""


def read_table(path: Path) -> list[Wanted]:
    """Read a CSV file with the columns device and facility; others are passed over.

    Raises:
        AuthorityError: if it cannot be read, has no such columns, no row, or more than `MOST_ROWS`.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            if not {(name or "").strip().lower() for name in reader.fieldnames or ()} >= _COLUMNS:
                raise AuthorityError(f"{path} has no columns device and facility in its first line; write: device,facility")
            rows = [_wanted(row, f"{path}, line {reader.line_num}") for row in reader]
    except OSError as error:
        raise AuthorityError(f"{path} cannot be read ({error.strerror}).") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise AuthorityError(f"{path} is no CSV table in UTF-8 ({error}).") from None
    if not 1 <= len(rows) <= MOST_ROWS:
        raise AuthorityError(f"{path} has {len(rows)} devices; a table has 1 to {MOST_ROWS}.")
    return rows


def _wanted(row: dict[str | None, str | list[str] | None], place: str) -> Wanted:
    values = {str(name).strip().lower(): str(value or "").strip() for name, value in row.items() if name is not None}
    return Wanted(values["device"], values["facility"], place)


def require_enrollable(wanted: Iterable[Wanted], fleet: Fleet, *, again: bool) -> None:
    """Check names and facilities against each other and against the fleet.

    Raises:
        AuthorityError: naming the first device that cannot be enrolled, and why.
    """
    folded = {name.casefold(): name for name in fleet.members}
    seen: dict[str, Wanted] = {}
    for one in wanted:
        where = f" ({one.place})" if one.place else ""
        try:
            msgspec.convert(one.device, DeviceId)
        except msgspec.ValidationError:
            raise AuthorityError(
                f"{one.device!r}{where} is no device name: letters (a to z), digits, - and _, a letter or digit first, at most 64."
            ) from None
        try:
            msgspec.convert(one.facility, FacilityId)
        except msgspec.ValidationError:
            raise AuthorityError(
                f"{one.facility!r}{where} is no name of a facility: letters (a to z), digits, spaces, dots, - and _, at most 64."
            ) from None
        key = one.device.casefold()
        if key in RESERVED:
            raise AuthorityError(f"{one.device}{where} is a name of the centre's own; choose another for the device.")
        if key in seen:
            raise AuthorityError(f"{one.device}{where} is there twice: {seen[key].device} at {seen[key].place}.")
        if folded.get(key, one.device) != one.device:
            raise AuthorityError(f"{one.device}{where} differs from {folded[key]} by capitals only; choose another name.")
        seen[key] = one
        if (member := fleet.members.get(one.device)) is None:
            continue
        if not again:
            raise AuthorityError(
                f"{one.device}{where} is enrolled already. For a new board or card say --again: the earlier one is shut out then."
            )
        if member.facility != one.facility:
            raise AuthorityError(
                f"{one.device}{where} is of {member.facility!r}, not of {one.facility!r}; a device that moves gets a new name."
            )
