"""What follows from the events of the journal: which devices there are, and which certificates count. Reads and writes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from edge.contract.types import DeviceId, FacilityId

Serial = Annotated[str, Meta(pattern=r"^[0-9a-f]{1,40}$", description="of a certificate, hexadecimal without leading zeros")]
KeyId = Annotated[str, Meta(pattern=r"^([0-9a-f]{8})?$")]


class Issue(msgspec.Struct, frozen=True):
    """A certificate that was made for a device."""

    device: DeviceId
    serial: Serial
    until: datetime


class Enrolled(msgspec.Struct, frozen=True):
    """One device of an enrolment: its first certificate, and which site key its facility has."""

    device: DeviceId
    facility: FacilityId
    serial: Serial
    until: datetime
    use_before: datetime
    key_id: KeyId = ""


class Making(msgspec.Struct, frozen=True, tag_field="event", tag="making"):
    """Certificates are made. Until `enrolment` names them nobody has them, and they count for nothing."""

    at: datetime
    certificates: list[Issue]


class Enrolment(msgspec.Struct, frozen=True, tag_field="event", tag="enrolment"):
    """The files of these devices are written, all of them."""

    at: datetime
    devices: list[Enrolled]


class Renewal(msgspec.Struct, frozen=True, tag_field="event", tag="renewal"):
    """A device that was asked to has sent a new public key, and a certificate was made for it."""

    at: datetime
    certificate: Issue


class Installed(msgspec.Struct, frozen=True, tag_field="event", tag="installed"):
    """A device says that it uses the certificate of its last renewal."""

    at: datetime
    device: DeviceId
    serial: Serial


class Revocation(msgspec.Struct, frozen=True, tag_field="event", tag="revocation"):
    """A device is no longer one of the fleet."""

    at: datetime
    device: DeviceId


Event = Making | Enrolment | Renewal | Installed | Revocation


@dataclass(frozen=True)
class Certificate:
    """One that a device has or may have."""

    serial: str
    made: datetime
    until: datetime
    by: Literal["enrolment", "renewal"]
    installed: bool = False
    """Of a renewal: the device has said that it uses it."""


@dataclass(frozen=True)
class Member:
    """How one device stands. `certificates`: those that count, the newest last; none: it is revoked."""

    device: str
    facility: str
    enrolled: datetime
    use_before: datetime
    certificates: tuple[Certificate, ...] = ()
    revoked: datetime | None = None

    @property
    def used(self) -> Certificate | None:
        """The certificate that it uses as far as is known: the last that it confirmed, else that of its enrolment."""
        known = [one for one in self.certificates if one.installed or one.by == "enrolment"]
        return known[-1] if known else None


@dataclass
class Fleet:
    """All devices. `take` adds one event after the other."""

    members: dict[str, Member] = field(default_factory=dict)
    revoked: set[str] = field(default_factory=set)
    key_of: dict[str, str] = field(default_factory=dict)
    """Facility -> the name of its site key."""
    _making: dict[str, set[str]] = field(default_factory=dict)

    def take(self, event: Event) -> None:
        """Let one event happen."""
        match event:
            case Making():
                for made in event.certificates:
                    self._making.setdefault(made.device, set()).add(made.serial)
            case Enrolment():
                for one in event.devices:
                    self._enrol(one, event.at)
            case Renewal(certificate=new):
                member = self.members.get(new.device)
                if member is None or member.revoked:
                    self.revoked.add(new.serial)  # it was revoked while the certificate was on its way
                else:
                    renewed = Certificate(new.serial, event.at, new.until, "renewal")
                    self.members[new.device] = replace(member, certificates=(*member.certificates, renewed))
            case Installed():
                self._installed(event)
            case Revocation(device=device):
                self._void(device)
                if (member := self.members.get(device)) is not None:
                    self.members[device] = replace(member, certificates=(), revoked=event.at)

    def _enrol(self, one: Enrolled, at: datetime) -> None:
        self._void(one.device)
        self.revoked.discard(one.serial)
        if one.key_id:
            self.key_of[one.facility] = one.key_id
        first = Certificate(one.serial, at, one.until, "enrolment")
        self.members[one.device] = Member(one.device, one.facility, at, one.use_before, (first,))

    def _installed(self, event: Installed) -> None:
        """The key that came in a file is worth nothing once the device has one of its own."""
        member = self.members.get(event.device)
        if member is None or not any(one.serial == event.serial for one in member.certificates):
            return
        kept = []
        for one in member.certificates:
            if one.serial == event.serial:
                kept.append(replace(one, installed=True))
            elif one.by == "enrolment":
                self.revoked.add(one.serial)
            else:
                kept.append(one)
        self.members[event.device] = replace(member, certificates=tuple(kept))

    def _void(self, device: str) -> None:
        """Revoke every certificate that was ever made for a device, also those that an enrolment that was cut off has left."""
        self.revoked |= self._making.pop(device, set())
        if (member := self.members.get(device)) is not None:
            self.revoked |= {one.serial for one in member.certificates}
