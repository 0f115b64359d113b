"""Enrolment: for each device a file that makes a board into it, and a paper with the code and the site's key.

All devices of one call are enrolled together or not at all. The site's key is made here and goes into files and onto papers; the
centre keeps its name only, as who has it can find out which patient a pseudonym is.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta, timezone
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from broker.errors import AuthorityError
from broker.fleet import standing
from broker.fleet.authority import CENTRE, Authority, require_private
from broker.fleet.broker_process import Throwaway, cut
from broker.fleet.certificates import certificate_pem, key_pem, new_key
from broker.fleet.paper import paper
from broker.fleet.revoking import make_witness
from broker.fleet.standing import Fleet, Issue
from broker.fleet.table import Wanted, require_enrollable
from edge.durable import write_durably
from edge.enrolment.code import new_code
from edge.enrolment.file import Enrolment, lock
from edge.privacy.pseudonym import KEY_BYTES, SiteKey, key_text


@dataclass(frozen=True)
class Options:
    """paper_key: the site key that was typed from the paper. new_site_key: make another one although the facility has one."""

    use_within: timedelta = timedelta(days=90)
    again: bool = False
    new_site_key: bool = False
    paper_key: SiteKey | None = None


@dataclass(frozen=True)
class Made:
    """The two files of one device. `key_id`: of the site key; `carried`: whether it is in the file and on the paper."""

    device: str
    facility: str
    file: Path
    paper: Path
    key_id: str
    carried: bool


@dataclass(frozen=True)
class _Key:
    """What a facility's files say of the site key."""

    key_id: str
    key: SiteKey | None


def enrol(authority: Authority, wanted: Sequence[Wanted], folder: Path, options: Options) -> list[Made]:
    """Enrol devices and write their files into `folder`. With `again`, earlier certificates of them count no more on return.

    Raises:
        AuthorityError: if one of them cannot be enrolled, or a folder cannot be written; then none is. Or if the broker goes on
            letting earlier certificates in; then all are, and the text says what to do.
    """
    made, replaced, witnesses = _enrol(authority, wanted, folder, options)
    if replaced:
        cut(authority, replaced, witnesses)
    return made


def _enrol(
    authority: Authority, wanted: Sequence[Wanted], folder: Path, options: Options
) -> tuple[list[Made], list[str], list[Throwaway]]:
    with authority.turn() as fleet:
        require_enrollable(wanted, fleet, again=options.again)
        now = authority.now()
        keys = _keys(fleet, wanted, options, now)
        require_private(folder)
        lasts, before = authority.settings.lasts, (now + options.use_within).date()
        made: list[tuple[Wanted, ec.EllipticCurvePrivateKey, bytes, standing.Enrolled]] = []
        for one in wanted:
            key = new_key()
            certificate = authority.maker.client(one.device, key.public_key(), now, lasts)
            until, serial = certificate.not_valid_after_utc, f"{certificate.serial_number:x}"
            use_before = datetime.combine(before, time(), timezone.utc)
            entry = standing.Enrolled(one.device, one.facility, serial, until, use_before, keys[one.facility].key_id)
            made.append((one, key, certificate_pem(certificate), entry))
        authority.record(standing.Making(now, [Issue(entry.device, entry.serial, entry.until) for *_, entry in made]))
        replaced = [one.device for one in wanted if one.device in fleet.members]
        witnesses = [make_witness(authority, device) for device in replaced]
        results = []
        try:
            for one, key, pem, _ in made:
                code, site_key = new_code(), keys[one.facility]
                content = Enrolment(
                    device=one.device,
                    facility=one.facility,
                    url=authority.settings.url,
                    https=authority.settings.https,
                    ca=authority.ca.read_text("ascii"),
                    identity=(key_pem(key) + pem).decode("ascii"),
                    centre=authority.files(CENTRE).cert.read_text("ascii"),
                    site_key=key_text(site_key.key).decode("ascii") if site_key.key else "",
                    key_id=site_key.key_id,
                    made=now,
                    use_before=before,
                )
                file, sheet = folder / f"{one.device}.enrol", folder / f"{one.device}.txt"
                write_durably(file, lock(content, code))
                text = paper(one.device, one.facility, code, before, site_key.key, site_key.key_id)
                write_durably(sheet, text.encode("ascii"))
                results.append(Made(one.device, one.facility, file, sheet, site_key.key_id, site_key.key is not None))
        except OSError as error:
            raise AuthorityError(f"{folder} cannot be written ({error.strerror}); no device was enrolled.") from None
        authority.record(standing.Enrolment(now, [entry for *_, entry in made]))
    return results, replaced, witnesses


def _keys(fleet: Fleet, wanted: Sequence[Wanted], options: Options, now: datetime) -> dict[str, _Key]:
    facilities = list(dict.fromkeys(one.facility for one in wanted))
    typed = options.paper_key
    if typed is not None and len(facilities) > 1:
        raise AuthorityError(f"A paper is of one site, and these devices are of {len(facilities)}; enrol each site by itself.")
    found = {}
    for facility in facilities:
        known = fleet.key_of.get(facility, "")
        if typed is not None:
            if known and known not in {key.key_id for key in typed.all}:
                raise AuthorityError(
                    f"The lines that were typed are of key {typed.key_id}; {facility} has key {known}. Take the paper of that."
                )
            found[facility] = _Key(typed.key_id, typed)
        elif known and not options.new_site_key:
            found[facility] = _Key(known, None)
        else:
            key = SiteKey(secrets.token_bytes(KEY_BYTES), now.date().isoformat())
            found[facility] = _Key(key.key_id, key)
    return found
