"""`cxr-broker`: the composition root of the centre, and the only place where its parts are built and wired."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from broker import cli_fleet
from broker.aggregate import Aggregator, no_commands
from broker.database import parse_url
from broker.errors import BrokerError, FileRefused, LinkError
from broker.ingest import Decision
from broker.listing import quarantine_lines, result_lines
from broker.mosquitto.render import find_mosquitto, require_free_port, write_loopback
from broker.mqtt import Address, PahoLink
from broker.ping import ping as send_ping
from broker.reader import Reader
from broker.settle import Settler
from broker.sql_store import SqlStore
from broker.sync.app import create_app, nobody_is
from broker.sync.bucket import Buckets
from broker.sync.server import Listen, SyncServer
from broker.web.server import serve as run_server
from edge.contract.messages import Command

_database = click.option("--db", "database", required=True, help="sqlite:///centre.db, or postgresql://user@host/name")


_folder = click.Path(exists=True, file_okay=False, path_type=Path)
_file = click.Path(exists=True, dir_okay=False, path_type=Path)


class _Group(click.Group):
    """Turns every error that is meant for people into one sentence and exit status 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokerError as error:
            click.echo(f"cxr-broker: {error}", err=True)
            sys.exit(2)


def _link_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--key", type=_file, help="private key of --cert"),
        click.option("--cert", type=_file, help="this program's certificate, for mqtts://"),
        click.option("--ca", type=_file, help="certificate authority of the broker, for mqtts://"),
        click.option(
            "--mqtt", help="mqtt://host:port or mqtts://host:port; without it that of --authority, or mqtt://127.0.0.1:1883"
        ),
        click.option("--authority", type=_folder, help="folder of `cxr-broker init`: address and certificates are those in it"),
    ):
        command = option(command)
    return command


def _address(mqtt: str | None, ca: Path | None, cert: Path | None, key: Path | None, authority: Path | None, name: str) -> Address:
    """Return where the broker is, and as who to speak to it: as said, and otherwise as `name` of the authority."""
    if authority is None:
        return Address.parse(mqtt or "mqtt://127.0.0.1:1883", ca, cert, key)
    from broker.fleet.authority import Authority

    found = Authority(authority)
    own = found.files(name)
    if (cert is None) != (key is None):
        raise LinkError("--cert and --key belong together; give both.")
    return Address.parse(mqtt or f"mqtts://127.0.0.1:{found.settings.mqtt_port}", ca or found.ca, cert or own.cert, key or own.key)


@click.group(cls=_Group)
def main() -> None:
    """The centre of a fleet of cxr-edge devices."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO, stream=sys.stderr)


cli_fleet.add_to(main)


@main.command()
@_link_options
@_database
@click.option("--sync", help="also take results by HTTPS here: https://0.0.0.0:8444, or http://127.0.0.1:8444 for this machine")
@click.option("--sync-ca", type=_file, help="certificate authority of the devices, for https://")
@click.option("--sync-cert", type=_file, help="this server's certificate, for https://")
@click.option("--sync-key", type=_file, help="private key of --sync-cert")
def aggregate(
    mqtt: str | None,
    authority: Path | None,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
    database: str,
    sync: str | None,
    sync_ca: Path | None,
    sync_cert: Path | None,
    sync_key: Path | None,
) -> None:
    """Take results from the broker into the database, and send receipts."""
    from broker.fleet.authority import Authority
    from broker.fleet.renewal import Renewals

    answers: Callable[[list[Decision]], list[Command]] = no_commands
    revoked: Callable[[str], bool] = nobody_is
    link = PahoLink(_address(mqtt, ca, cert, key, authority, "aggregator"))
    if authority is not None:
        found = Authority(authority)
        sync = sync or f"https://0.0.0.0:{found.settings.https_port}"
        own = found.files("broker")
        sync_ca, sync_cert, sync_key = sync_ca or found.ca, sync_cert or own.cert, sync_key or own.key
        renewals = Renewals(found)
        renewals.follow()
        answers, revoked = renewals.answers, renewals.revoked
    listen = Listen.parse(sync, sync_ca, sync_cert, sync_key) if sync else None
    store = SqlStore(parse_url(database))
    aggregator = Aggregator(store, link, answers)
    server = None
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        if listen is not None:
            server = SyncServer(create_app(aggregator.settler, Buckets(), answers, revoked), listen)
            server.start()
        link.start()
        aggregator.run(stop)
    finally:
        if server is not None:
            server.close()
        link.close()
        store.close()


@main.command(name="import")
@click.argument("files", nargs=-1, required=True, type=_file, metavar="FILE...")
@_database
@click.option("--authority", type=_folder, help="folder of `cxr-broker init`: --ca, --cert and --key are those in it")
@click.option("--ca", type=_file, help="certificate authority of the devices")
@click.option("--cert", type=_file, help="the centre's certificate, the one that devices have as [usb] centre")
@click.option("--key", type=_file, help="private key of --cert")
@click.option("--receipts", type=_folder, help="where the receipts for the devices are written; without it beside each file")
@click.option(
    "--revoked-too",
    is_flag=True,
    help="also what a card has exported that was replaced or revoked since, where you know that nobody else had it before",
)
def import_files(
    files: tuple[Path, ...],
    database: str,
    authority: Path | None,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
    receipts: Path | None,
    revoked_too: bool,
) -> None:
    """Take in what was carried here in sealed FILEs, and write the receipts to carry back. Stop the aggregator meanwhile."""
    from broker.usb import import_file
    from edge.sealed.keys import Unsealable, load_certificate, load_identity

    revoked: Callable[[str], bool] = nobody_is
    if authority is not None:
        from broker.fleet.authority import Authority
        from broker.fleet.renewal import Renewals

        found = Authority(authority)
        own = found.files("centre")
        ca, cert, key = ca or found.ca, cert or own.cert, key or own.key
        if not revoked_too:
            revoked = Renewals(found).revoked
    if ca is None or cert is None or key is None:
        raise BrokerError("Say --authority, or --ca, --cert and --key.")
    try:
        root, centre = load_certificate(ca), load_identity(cert, key)
    except Unsealable as error:
        raise BrokerError(f"The certificates cannot be used: {error}.") from None
    refused = 0
    with closing(SqlStore(parse_url(database))) as store:
        settler = Settler(store)
        for file in files:
            try:
                done = import_file(file, settler, root, centre, receipts or file.parent, revoked)
            except FileRefused as error:
                refused += 1
                click.echo(f"cxr-broker: {error}", err=True)
            else:
                click.echo(f"{file}: {done.messages} outcomes of {done.device}; receipts in {done.receipts}")
    if refused:
        sys.exit(1)


@main.command()
@_database
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="the page has no accounts: put a proxy with them in front of it"
)
@click.option("--port", default=8080, show_default=True, type=click.IntRange(1, 65535))
def serve(database: str, host: str, port: int) -> None:
    """Show results, devices and the quarantine in a browser."""
    run_server(Reader(parse_url(database)), host, port)


@main.command()
@_database
@click.option("--json", "as_json", is_flag=True, help="one JSON object a line")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(min=0), help="0 lists everything")
def results(database: str, as_json: bool, limit: int) -> None:
    """List outcomes, the last to arrive first."""
    for line in result_lines(Reader(parse_url(database)), limit, as_json=as_json):
        click.echo(line)


@main.command()
@_database
@click.option("--json", "as_json", is_flag=True, help="one JSON object a line, with the message itself")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(min=0), help="0 lists everything")
def quarantine(database: str, as_json: bool, limit: int) -> None:
    """List the messages that were kept apart, the newest first."""
    for line in quarantine_lines(Reader(parse_url(database)), limit, as_json=as_json):
        click.echo(line)


@main.command()
@click.argument("device")
@_link_options
@click.option("--timeout", default=10.0, show_default=True, type=click.FloatRange(min=0.1), help="seconds")
def ping(
    device: str, mqtt: str | None, authority: Path | None, ca: Path | None, cert: Path | None, key: Path | None, timeout: float
) -> None:
    """Ask DEVICE for a sign of life."""
    reply, seconds = send_ping(_address(mqtt, ca, cert, key, authority, "operator"), device, timeout)
    click.echo(f"{device} answered {'ok' if reply.ok else 'not ok'} in {seconds * 1000:.0f} ms. {reply.detail}".rstrip())
    if not reply.ok:
        sys.exit(1)


@main.command()
@click.option(
    "--dir", "folder", required=True, type=click.Path(file_okay=False, path_type=Path), help="for its configuration and data"
)
@click.option("--port", default=1883, show_default=True, type=click.IntRange(1, 65535))
def mosquitto(folder: Path, port: int) -> None:
    """Become the Mosquitto of the authority in --dir; where there is none, one for this machine alone (loopback, no accounts)."""
    program = find_mosquitto()
    if (folder / "authority.json").exists():
        from broker.fleet.authority import Authority

        found = Authority(folder)
        require_free_port("0.0.0.0", found.settings.mqtt_port)  # noqa: S104  # as its configuration says
        configuration = found.configuration
        try:  # the list may be missing, damaged or behind, and the broker does not start without one
            with found.turn():
                pass
        except BrokerError as error:
            logging.getLogger(__name__).error("The list of revoked certificates stays as it is: %s", error)
    else:
        require_free_port("127.0.0.1", port)
        configuration = write_loopback(folder, port)
    os.execv(program, [program, "-c", str(configuration)])  # noqa: S606  # no shell


if __name__ == "__main__":
    main()
