"""What would keep the page from being served, without starting it."""

from __future__ import annotations

import contextlib
import socket
import ssl
from pathlib import Path

from edge.config import Page
from edge.errors import ConfigError
from edge.listening import require_free
from edge.page.session import load_pin
from edge.unattended.lifecycle import is_running

_EVERY = ("0.0.0.0", "::")  # noqa: S104 - looked for, not listened at
"""The addresses that stand for every network that the machine is in."""


def describe(page: Page, state: Path) -> str:
    """Return where the page is.

    Raises:
        ConfigError: with what is wrong.
    """
    load_pin(Path(page.pin))
    require_tls(page)
    if not is_running(state, "page"):
        require_free("[page]", page.address, page.port)
    alone = "; this machine alone can open it" if page.address.startswith("127.") else ""
    host = page.address
    if host in _EVERY:
        # Such a page answers to its name and to whichever of its addresses was asked (edge/page/hosts.py). A name is known in few
        # networks, and as NAME.local only where something answers for it.
        host, alone = own_address() or socket.gethostname(), "; or by any other address of this machine"
    return f"{'https' if page.certificate else 'http'}://{host}:{page.port}{alone}"


def own_address() -> str | None:
    """Return the address that this machine has in the network that leads out of it; None if it is in no such network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked, contextlib.suppress(OSError):
        asked.connect(("192.0.2.1", 9))  # sends nothing; an address of nobody (RFC 5737)
        return str(asked.getsockname()[0])
    return None


def require_tls(page: Page) -> None:
    """Raise ConfigError if only one of certificate and key is named, or they cannot be used."""
    if bool(page.certificate) != bool(page.private_key):
        raise ConfigError("[page] names a certificate or a private_key alone; TLS needs both.")
    if page.certificate:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(page.certificate, page.private_key)
        except OSError as error:
            raise ConfigError(f"The TLS files of [page] cannot be used ({error.strerror or error}).") from None
