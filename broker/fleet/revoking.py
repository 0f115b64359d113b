"""Taking devices out of the fleet: in the journal, in the list of revoked certificates, at the broker."""

from __future__ import annotations

from broker.errors import AuthorityError
from broker.fleet.authority import Authority
from broker.fleet.broker_process import Throwaway, cut
from broker.fleet.standing import Issue, Making, Revocation


def revoke(authority: Authority, device: str) -> bool:
    """Revoke every certificate of a device; again does no harm. Return whether a broker runs here and has ended its connection.

    Raises:
        AuthorityError: if there is no such device, or the broker does not follow. What the journal says counts all the same.
    """
    with authority.turn() as fleet:
        if device not in fleet.members:
            raise AuthorityError(f"{device} was never enrolled; `cxr-broker fleet` lists who was.")
        witness = make_witness(authority, device)
        authority.record(Revocation(authority.now(), device))
    return cut(authority, [device], [witness])


def make_witness(authority: Authority, device: str) -> Throwaway:
    """Return a certificate that is revoked with those that the device has, in one's turn and just before they are."""
    witness = Throwaway(authority, device)
    issue = Issue(device, witness.serial, witness.certificate.not_valid_after_utc)
    authority.record(Making(authority.now(), [issue]))
    return witness
