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

from broker.errors import AuthorityError
from broker.fleet import standing
from broker.fleet.authority import CENTRE, Authority, require_private
from broker.fleet.broker_process import cut
from broker.fleet.certificates import certificate_pem, key_pem, new_key
from broker.fleet.paper import paper
from broker.fleet.revoking import revoke_in_turn
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
    """The two files of one device.

    `key_id`: of the site key; `carried`: whether it is in the file and on the paper. `cut`: whether a broker runs here and refuses
    what the device had before; None if it had nothing.
    """

    device: str
    facility: str
    file: Path
    paper: Path
    key_id: str
    carried: bool
    cut: bool | None


@dataclass(frozen=True)
class _Prepared:
    """What becomes a file, a paper and an entry of the journal."""

    content: Enrolment
    key: SiteKey | None
    entry: standing.Enrolled


@dataclass(frozen=True)
class _Key:
    """What a facility's files say of the site key."""

    key_id: str
    key: SiteKey | None


def enrol(authority: Authority, wanted: Sequence[Wanted], folder: Path, options: Options) -> list[Made]:
    """Enrol devices and write their files into `folder`. With `again`, what they had before is shut out first.

    Raises:
        AuthorityError: if one of them cannot be enrolled, or a folder cannot be written; then none is. Or if the broker goes on
            letting earlier certificates in; then they are revoked, and enrolled when the same is said again.
    """
    with authority.alone():
        with authority.turn() as fleet:
            require_enrollable(wanted, fleet, again=options.again)
            now = authority.now()
            keys = _keys(fleet, wanted, options, now)
            require_private(folder)
            replaced = [one.device for one in wanted if one.device in fleet.members]
            witnesses = [revoke_in_turn(authority, device) for device in replaced]
        # Before the device counts again: an earlier card of it has the same name, and would be taken for the new one and renewed.
        cuts = dict.fromkeys(replaced, cut(authority, replaced, witnesses)) if replaced else {}
        prepared = [_prepare(authority, one, keys[one.facility], now, options) for one in wanted]
        with authority.turn():
            authority.record(standing.Making(now, [Issue(one.entry.device, one.entry.serial, one.entry.until) for one in prepared]))
        try:
            # Takes long, and holds up nobody.
            made = [_write(folder, one, cuts.get(one.content.device)) for one in prepared]
        except OSError as error:
            shut_out = f" What {', '.join(replaced)} had before is revoked all the same: say it again." if replaced else ""
            raise AuthorityError(f"{folder} cannot be written ({error.strerror}); no device was enrolled.{shut_out}") from None
        with authority.turn() as fleet:
            for one in prepared:
                if one.entry.serial in fleet.revoked:  # who revoked it does not want it in
                    raise AuthorityError(f"{one.entry.device} was revoked meanwhile; no device was enrolled. Say it again.")
            authority.record(standing.Enrolment(now, [one.entry for one in prepared]))
    return made


def _prepare(authority: Authority, one: Wanted, site: _Key, now: datetime, options: Options) -> _Prepared:
    settings, key = authority.settings, new_key()
    certificate = authority.maker.client(one.device, key.public_key(), now, settings.lasts)
    before = (now + options.use_within).date()
    content = Enrolment(
        device=one.device,
        facility=one.facility,
        url=settings.url,
        https=settings.https,
        ca=authority.ca.read_text("ascii"),
        identity=(key_pem(key) + certificate_pem(certificate)).decode("ascii"),
        centre=authority.files(CENTRE).cert.read_text("ascii"),
        site_key=key_text(site.key).decode("ascii") if site.key else "",
        key_id=site.key_id,
        made=now,
        use_before=before,
    )
    until, serial = certificate.not_valid_after_utc, f"{certificate.serial_number:x}"
    last = datetime.combine(before, time(), timezone.utc)
    return _Prepared(content, site.key, standing.Enrolled(one.device, one.facility, serial, until, last, site.key_id))


def _write(folder: Path, one: _Prepared, cut: bool | None) -> Made:
    content, code = one.content, new_code()
    file, sheet = folder / f"{content.device}.enrol", folder / f"{content.device}.txt"
    write_durably(file, lock(content, code))
    text = paper(content.device, content.facility, code, content.use_before, one.key, content.key_id)
    write_durably(sheet, text.encode("ascii"))
    return Made(content.device, content.facility, file, sheet, content.key_id, one.key is not None, cut)


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
