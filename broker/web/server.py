"""Runs the dashboard until it is told to stop."""

from __future__ import annotations

import uvicorn

from broker.mosquitto.render import require_free_port
from broker.reader import Reader
from broker.web.app import create_app


def serve(reader: Reader, host: str, port: int) -> None:
    """Serve the page at `host`:`port` until SIGTERM or Ctrl-C.

    Raises:
        StartError: if the port cannot be used.
    """
    require_free_port(host, port)
    uvicorn.run(create_app(reader), host=host, port=port, log_level="warning", access_log=False, server_header=False)
