"""Who may send: the entries `AETITLE@ADDRESS` or `AETITLE@ADDRESS:PORT` of `[dicom] allow`."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from edge.config import Dicom
from edge.errors import ConfigError


@dataclass(frozen=True)
class Peer:
    """One machine. `port` is where it listens for reports of storage commitment, None where it does not."""

    ae_title: str
    address: str
    port: int | None = None


def parse_peers(allow: Iterable[str]) -> tuple[Peer, ...]:
    """Return the machines that `allow` lists.

    Raises:
        ConfigError: naming the entry that makes no sense.
    """
    return tuple(_parse(entry) for entry in allow)


def own_peer(settings: Dicom) -> Peer:
    """Return the device itself as a machine that sends to its own listener: for a test film."""
    anywhere = ipaddress.ip_address(settings.address).is_unspecified
    address = ("::1" if ":" in settings.address else "127.0.0.1") if anywhere else settings.address
    return Peer(settings.ae_title, normal(address))


def find_peer(peers: Iterable[Peer], ae_title: str, address: str) -> Peer | None:
    """Return the machine with this AE title at this address."""
    where = normal(address)
    return next((peer for peer in peers if (peer.ae_title, peer.address) == (ae_title.strip(), where)), None)


def normal(address: str) -> str:
    """Return the one spelling of an address; an IPv4 address inside an IPv6 one is itself. Raises ValueError if it is none."""
    found = ipaddress.ip_address(address)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)


def shown(ae_title: str) -> str:
    """Return an AE title of anybody as it may stand in the log: on one line."""
    return "".join(letter if letter.isprintable() else "?" for letter in ae_title)


def _parse(entry: str) -> Peer:
    ae_title, _, place = entry.rpartition("@")
    if place.startswith("["):
        address, _, rest = place[1:].partition("]")
        port = rest.removeprefix(":")
    elif place.count(":") == 1:
        address, _, port = place.partition(":")
    else:
        address, port = place, ""
    try:
        if not 1 <= len(ae_title.strip()) <= 16 or (port and not 1 <= int(port) <= 65535):
            raise ValueError
        return Peer(ae_title.strip(), normal(address), int(port) if port else None)
    except ValueError:
        raise ConfigError(
            f"[dicom] allow has {entry!r}; an entry is AETITLE@ADDRESS or AETITLE@ADDRESS:PORT with a numeric address, "
            'as "XRAY1@192.168.1.20" or "PACS@[fd00::5]:104".'
        ) from None
