"""By which names this page may be asked for.

A page elsewhere whose name was made to lead here (DNS rebinding) is one with this page for a browser, and could read all that is
shown. A name that is not ours is therefore no name to answer to. With TLS the certificate says so already.
"""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit


def own_names(address: str) -> frozenset[str]:
    """Return the names of this machine: [page] `address`, localhost, its own name, alone and as NAME.local."""
    name = socket.gethostname().lower()
    short = name.partition(".")[0]
    return frozenset({address.lower(), "localhost", name, short, f"{short}.local"})


def is_own(host: str, names: frozenset[str], reached: str) -> bool:
    """Return whether a Host header names this machine.

    Args:
        host: the header, with a port or without.
        names: see `own_names`.
        reached: the address of this machine that the request came to.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return name.rstrip(".") in names or _same_address(name, reached)


def _same_address(one: str, other: str) -> bool:
    try:
        return ipaddress.ip_address(one.partition("%")[0]) == ipaddress.ip_address(other.partition("%")[0])
    except ValueError:
        return False
