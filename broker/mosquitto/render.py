"""Fills in Mosquitto's configuration templates and finds the program; decides nothing about their content."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
from importlib import resources
from pathlib import Path
from string import Template

from broker.errors import StartError

_ALSO_HERE = "/usr/local/sbin:/usr/sbin:/sbin"


def render(template: str, **values: object) -> str:
    """Return the template of that name (`loopback.conf`, `fleet.conf`, `fleet.acl`) with its `$names` filled in.

    Raises:
        KeyError: if a name of the template is missing in `values`.
    """
    text = resources.files("broker.mosquitto").joinpath(template).read_text(encoding="utf-8")
    return Template(text).substitute(values)


def write_loopback(folder: Path, port: int) -> Path:
    """Write `mosquitto.conf` for one machine into `folder` (made if need be), and return its path."""
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "mosquitto.conf"
    path.write_text(render("loopback.conf", port=port, folder=folder, user=_user()), encoding="utf-8")
    return path


def fleet_files(folder: Path, port: int, aggregator: str, operator: str, dashboard: str) -> dict[str, str]:
    """Return `mosquitto.conf` and `mosquitto.acl` for real use: name in `folder` -> text.

    `folder` holds ca.pem, crl.pem and broker.pem (key and certificate), and a folder `broker` for Mosquitto's data and process id.
    `aggregator`, `operator` and `dashboard` are the certificate names (CN) of the aggregator, of who sends commands by hand, and of
    read-only dashboards.
    """
    folder = folder.absolute()
    return {
        "mosquitto.acl": render("fleet.acl", aggregator=aggregator, operator=operator, dashboard=dashboard),
        "mosquitto.conf": render("fleet.conf", port=port, folder=folder, user=_user()),
    }


def find_mosquitto() -> str:
    """Return the path of the program.

    Raises:
        StartError: if it is not installed.
    """
    found = shutil.which("mosquitto", path=f"{os.environ.get('PATH', os.defpath)}:{_ALSO_HERE}")
    if found is None:
        raise StartError("Mosquitto is not installed; on Debian or Ubuntu: apt install mosquitto.")
    return found


def require_free_port(host: str, port: int) -> None:
    """Raises StartError if something listens on that port already, or this user may not."""
    try:
        with socket.create_server((host, port)):
            return
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no such port"
        raise StartError(
            f"Port {port} on {host} cannot be used ({reason}); stop what listens there or choose another port."
        ) from None


def _user() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name
