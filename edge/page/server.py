"""Runs the page until it is told to stop."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn
from starlette.applications import Starlette

from edge.config import Page
from edge.listening import require_free
from edge.page.connections import Connection
from edge.page.readiness import require_tls
from edge.unattended.notify import NOBODY, Notifier, nothing

_AT_ONCE = 100
_GRACE_S = 15
"""For an upload that is on its way when the process is told to end."""


def serve(app: Starlette, page: Page, notifier: Notifier, look: Callable[[], object]) -> None:
    """Serve the page until SIGTERM or Ctrl-C.

    All of the page runs in the loop that tells `notifier` of progress, so that one handler that hangs ends that too. `look` is
    called before, in the same loop: it looks at the disk.

    Raises:
        ConfigError: if the address, the port or the files of TLS cannot be used.
    """
    require_tls(page)
    require_free("[page]", page.address, page.port)
    make_server(app, page, notifier, look).run()


def make_server(app: Starlette, page: Page, notifier: Notifier = NOBODY, look: Callable[[], object] = nothing) -> uvicorn.Server:
    """Return what serves the page; see `serve`."""

    async def progress() -> None:
        look()
        notifier.progress()

    config = uvicorn.Config(
        app,
        host=page.address,
        port=page.port,
        http=Connection,
        ws="none",
        ssl_certfile=page.certificate or None,
        ssl_keyfile=page.private_key or None,
        limit_concurrency=_AT_ONCE,
        timeout_graceful_shutdown=_GRACE_S,
        proxy_headers=False,  # nothing stands before the page, so a header that names another address is a lie
        log_config=None,  # the process has set up its own
        log_level="warning",
        access_log=False,
        server_header=False,
        callback_notify=progress,
        timeout_notify=1,
    )
    return _Server(config, notifier)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, notifier: Notifier) -> None:
        super().__init__(config)
        self._notifier = notifier

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._notifier.ready("serves the clinic's page")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._notifier.stopping()
        await super().shutdown(sockets)
