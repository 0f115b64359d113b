"""What would keep the page from being served, without starting it."""

from __future__ import annotations

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
        # Such a page answers to its name and to whichever of its addresses was asked (edge/page/hosts.py).
        host, alone = f"{socket.gethostname().partition('.')[0]}.local", "; or by any address of this machine"
    return f"{'https' if page.certificate else 'http'}://{host}:{page.port}{alone}"


def require_tls(page: Page) -> None:
    """Raise ConfigError if only one of certificate and key is named, or they cannot be used."""
    if bool(page.certificate) != bool(page.private_key):
        raise ConfigError("[page] names a certificate or a private_key alone; TLS needs both.")
    if page.certificate:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(page.certificate, page.private_key)
        except OSError as error:
            raise ConfigError(f"The TLS files of [page] cannot be used ({error.strerror or error}).") from None
