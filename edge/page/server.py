"""Runs the page until it is told to stop."""

from __future__ import annotations

import socket

import uvicorn
from starlette.applications import Starlette

from edge.config import Page
from edge.errors import ConfigError

_AT_ONCE = 40
_GRACE_S = 5


def serve(app: Starlette, page: Page) -> None:
    """Serve the page until SIGTERM or Ctrl-C.

    Raises:
        ConfigError: if the address or the port cannot be used, or only one of certificate and key is named.
    """
    if bool(page.certificate) != bool(page.private_key):
        raise ConfigError("[page] names a certificate or a private_key alone; TLS needs both.")
    _require_free(page.address, page.port)
    uvicorn.run(
        app,
        host=page.address,
        port=page.port,
        ssl_certfile=page.certificate or None,
        ssl_keyfile=page.private_key or None,
        limit_concurrency=_AT_ONCE,
        timeout_graceful_shutdown=_GRACE_S,
        log_level="warning",
        access_log=False,
        server_header=False,
    )


def _require_free(address: str, port: int) -> None:
    try:
        with socket.create_server((address, port)):
            pass
    except OSError as error:
        raise ConfigError(
            f"The page cannot be served at {address}:{port} ({error.strerror}). [page] address is that of this machine in the "
            "clinic's network; choose another port if one is taken."
        ) from None
