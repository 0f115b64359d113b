"""Whether this machine can listen at an address and a port that the configuration names."""

from __future__ import annotations

import errno
import socket

from edge.errors import ConfigError


def require_free(table: str, address: str, port: int) -> None:
    """Try it for the settings of one `table` of device.toml, named with its brackets.

    Raises:
        ConfigError: with what is wrong and what to do.
    """
    advice = {
        errno.EADDRNOTAVAIL: f"is no address of this machine; `ip address` shows which it has. Correct {table} address.",
        errno.EADDRINUSE: f"is in use by another program. Take another {table} port, or end that program.",
        errno.EACCES: f"may not be listened on by this user. Take a {table} port from 1024 on.",
    }
    try:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as a listener does
            probe.bind((address, port))
    except socket.gaierror:
        raise ConfigError(f"{table} address {address!r} is no address; write it in numbers, as 192.168.1.5.") from None
    except OSError as error:
        raise ConfigError(
            f"{address}:{port} {advice.get(error.errno or 0, f'cannot be listened on ({error.strerror}).')}"
        ) from None
