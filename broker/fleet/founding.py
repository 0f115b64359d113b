"""Making an authority, and renewing the certificates of its servers. Whatever ends it in between, it can be run again."""

from __future__ import annotations

import ipaddress
import re
from datetime import datetime
from pathlib import Path

import msgspec

from broker.errors import AuthorityError
from broker.fleet.authority import AGGREGATOR, BROKER, CENTRE, DASHBOARD, OPERATOR, Authority, Settings, load_maker, require_private
from broker.fleet.certificates import LONG, Maker, certificate_pem, key_pem, new_key, new_root
from broker.mosquitto.render import fleet_files
from edge.durable import write_durably

LOOPBACK = ("localhost", "127.0.0.1", "::1")
_HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,62})?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,62})?)*")


def found(folder: Path, settings: Settings, now: datetime) -> bool:
    """Make an authority in `folder`; return whether there was none. One that is there stays as it is.

    Raises:
        AuthorityError: if `settings` make no sense or differ from those of one that is there, or the folder cannot be used.
    """
    _require_sense(settings)
    folder = folder.absolute()
    if (folder / "authority.json").exists():
        if Authority(folder).settings != settings:
            raise AuthorityError(f"{folder} holds an authority with other hosts, ports or times; `--renew` changes them.")
        return False
    if (folder / "journal.jsonl").exists():
        raise AuthorityError(f"authority.json is missing in {folder}, which has a journal; put it back from the backup.")
    require_private(folder)
    try:
        root = new_root(f"cxr-edge authority of {settings.hosts[0]}"[:64], now)
        write_durably(folder / "ca.key", key_pem(root.key))
        write_durably(folder / "ca.pem", certificate_pem(root.certificate))
        _write_clients(folder, root, now)
        write_durably(folder / "crl.pem", root.revocations((), 0))
        _write_servers(folder, root, settings, now)
    except OSError as error:
        raise AuthorityError(f"{folder} cannot be written ({error.strerror}); nothing counts before all of it is there.") from None
    return True


def renew_servers(folder: Path, settings: Settings, now: datetime) -> None:
    """Make a new certificate for the servers, with other hosts perhaps, and write the broker's configuration anew.

    Raises:
        AuthorityError: if `settings` make no sense, or the folder cannot be used.
    """
    _require_sense(settings)
    folder = Authority(folder).folder
    try:
        _write_servers(folder, load_maker(folder), settings, now)
    except OSError as error:
        raise AuthorityError(f"{folder} cannot be written ({error.strerror}); run this again.") from None


def _write_clients(folder: Path, root: Maker, now: datetime) -> None:
    for name in (AGGREGATOR, OPERATOR, DASHBOARD, CENTRE):
        key = new_key()
        made = root.sealer(name, key.public_key(), now) if name == CENTRE else root.client(name, key.public_key(), now, LONG)
        write_durably(folder / f"{name}.key", key_pem(key))
        write_durably(folder / f"{name}.pem", certificate_pem(made))


def _write_servers(folder: Path, root: Maker, settings: Settings, now: datetime) -> None:
    key = new_key()
    hosts = list(dict.fromkeys((*settings.hosts, *LOOPBACK)))
    # Key and certificate in one file, so that one rename changes both: a broker may read them at any moment.
    both = key_pem(key) + certificate_pem(root.server(BROKER, key.public_key(), hosts, now))
    write_durably(folder / f"{BROKER}.pem", both)
    (folder / "broker").mkdir(mode=0o700, exist_ok=True)
    for name, text in fleet_files(folder, settings.mqtt_port, AGGREGATOR, OPERATOR, DASHBOARD).items():
        write_durably(folder / name, text.encode())
    write_durably(folder / "authority.json", msgspec.json.format(msgspec.json.encode(settings), indent=2) + b"\n")


def _require_sense(settings: Settings) -> None:
    if not settings.hosts:
        raise AuthorityError("Say by --host under which name or address devices reach the centre; several are possible.")
    for host in settings.hosts:
        try:
            ipaddress.ip_address(host)
        except ValueError:
            # Four numbers that are no address would be taken for a name.
            if not _HOST.fullmatch(host) or re.fullmatch(r"[\d.]+", host):
                raise AuthorityError(f"{host!r} is neither a name nor an address; write centre.example or 192.0.2.7.") from None
