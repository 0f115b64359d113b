"""`cxr-broker init`, `enroll`, `revoke` and `fleet`: who belongs to the fleet. Part of the composition root."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from broker.errors import AuthorityError

if TYPE_CHECKING:
    from edge.privacy.pseudonym import SiteKey

_folder = click.Path(file_okay=False, path_type=Path)
_authority = click.option("--dir", "folder", required=True, type=_folder, help="the authority's folder, made by `cxr-broker init`")


def add_to(group: click.Group) -> None:
    """Add the commands to `cxr-broker`."""
    for command in (init, enroll, revoke, fleet):
        group.add_command(command)


def _times(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--grace", default=365, show_default=True, type=click.IntRange(1, 3650), help="days a device may be offline"),
        click.option(
            "--renew-after", default=60, show_default=True, type=click.IntRange(1, 3650), help="days after which one is renewed"
        ),
        click.option("--https-port", default=8444, show_default=True, type=click.IntRange(1, 65535)),
        click.option("--mqtt-port", default=8883, show_default=True, type=click.IntRange(1, 65535)),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("folder", type=_folder, metavar="DIR")
@click.option("--host", "hosts", multiple=True, required=True, help="name or address at which devices reach the centre; repeatable")
@_times
@click.option("--renew", is_flag=True, help="new certificate of the servers, and these hosts, ports and times, for an authority")
def init(folder: Path, hosts: tuple[str, ...], mqtt_port: int, https_port: int, renew_after: int, grace: int, renew: bool) -> None:
    """Make the authority of a fleet in DIR: root, the servers' certificates, Mosquitto's configuration."""
    from broker.fleet.authority import Authority, Settings, utc_now
    from broker.fleet.broker_process import reload
    from broker.fleet.founding import found, renew_servers

    settings = Settings(list(hosts), mqtt_port, https_port, renew_after, grace)
    if renew:
        renew_servers(folder, settings, utc_now())
        told = reload(Authority(folder))
        click.echo(f"The servers' certificate in {folder} is new; hosts: {', '.join(hosts)}.")
        click.echo("The broker uses it from now on." if told else "No broker runs here; it is used from its next start on.")
        click.echo("Start the aggregator again. A changed port needs a new start of the broker as well.")
        return
    if not found(folder, settings, utc_now()):
        click.echo(f"{folder} holds this authority already; nothing was changed.")
        return
    click.echo(f"Made an authority in {folder}. Who has {folder / 'ca.key'} can make devices: keep a copy of the folder in a safe.")
    click.echo(f"Start the broker:      cxr-broker mosquitto --dir {folder}")
    click.echo(f"Start the aggregator:  cxr-broker aggregate --authority {folder} --db sqlite:///centre.db")
    click.echo(f"Enrol a device:        cxr-broker enroll clinic-1 --facility 'Clinic 1' --dir {folder} --out FOLDER")


@click.command()
@click.argument("device", required=False)
@click.option("--facility", help="name of the clinic; its devices share one site key")
@click.option("--table", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="CSV with the columns device,facility")
@_authority
@click.option("--out", required=True, type=_folder, help="where files and papers are written; made if it is not there")
@click.option("--again", is_flag=True, help="a new board or card of a device: what it had before is shut out")
@click.option("--use-within", default=90, show_default=True, type=click.IntRange(1, 365), help="days in which a file can be used")
@click.option("--site-key-paper", help="FILE with the typed lines of the site key's paper, or - to type them here")
@click.option("--new-site-key", is_flag=True, help="another key for a facility that has one; see docs/reference/privacy.md")
def enroll(
    device: str | None,
    facility: str | None,
    table: Path | None,
    folder: Path,
    out: Path,
    again: bool,
    use_within: int,
    site_key_paper: str | None,
    new_site_key: bool,
) -> None:
    """Make the enrolment file and the paper of DEVICE, or of every device of a table."""
    from broker.fleet.authority import Authority
    from broker.fleet.enrolling import Options, enrol
    from broker.fleet.table import Wanted, read_table

    if table is not None and (device or facility):
        raise AuthorityError("Say either one DEVICE with --facility, or --table; not both.")
    if table is None and (not device or not facility):
        raise AuthorityError("Say which DEVICE and its --facility, or give a --table of them.")
    if site_key_paper and new_site_key:
        raise AuthorityError("Either the key of the paper, or a new one; leave --site-key-paper or --new-site-key out.")
    authority = Authority(folder)
    wanted = [Wanted(device or "", facility or "")] if table is None else read_table(table)
    known = dict(authority.fleet().key_of)
    paper_key = _typed(site_key_paper) if site_key_paper else None
    all_made = enrol(authority, wanted, out, Options(timedelta(days=use_within), again, new_site_key, paper_key))
    for cut in (True, False):
        if replaced := [made.device for made in all_made if made.cut is cut]:
            _say_revoked(f"What {', '.join(replaced)} had before", folder, cut=cut)
    for made in all_made:
        click.echo(f"{made.device} ({made.facility}): {made.file} and, to print, {made.paper}")
        if not made.carried:
            click.echo(f"  Its file has no site key: key {made.key_id} of {made.facility} is typed from its paper at the device.")
    if cuts := [name for name in dict.fromkeys(one.facility for one in wanted) if new_site_key and name in known]:
        click.echo(
            f"{', '.join(cuts)}: a new site key. Patients from before and after it are not joined at the centre, and its other"
        )
        click.echo("devices need the new paper: cxr-edge key restore.")
    kept = ": the site key is kept nowhere else" if any(made.carried for made in all_made) else ""
    click.echo(f"Print the papers, send file and code by two ways, then delete both here{kept}.")


@click.command()
@click.argument("device")
@_authority
def revoke(device: str, folder: Path) -> None:
    """Shut DEVICE out: its connection is cut, and none of its certificates counts any more."""
    from broker.fleet.authority import Authority
    from broker.fleet.revoking import revoke as do

    _say_revoked(device, folder, cut=do(Authority(folder), device))


@click.command()
@_authority
@click.option("--json", "as_json", is_flag=True, help="one JSON object a line")
def fleet(folder: Path, as_json: bool) -> None:
    """List the devices that were enrolled, and how each stands."""
    from broker.fleet.authority import Authority
    from broker.fleet.listing import fleet_lines

    authority = Authority(folder)
    for line in fleet_lines(authority.fleet(), authority.now(), as_json=as_json):
        click.echo(line)


def _say_revoked(what: str, folder: Path, *, cut: bool) -> None:
    """Say what holds from now on, and what is left to do where `cut` could end no connection, as no broker runs here."""
    if cut:
        click.echo(f"{what} is revoked: its connection is cut, and the broker refuses its certificates.")
    else:
        click.echo(f"{what} is revoked. No broker runs on this machine; it refuses those certificates from its next start on.")
        click.echo(f"If one runs elsewhere, copy {folder / 'crl.pem'} there, and send it SIGHUP.")


def _typed(source: str) -> SiteKey:
    """Return the site key in a file, or typed here."""
    from edge.errors import CxrError
    from edge.privacy.key_paper import read_paper

    try:
        if source == "-":
            if sys.stdin.isatty():
                click.echo("Type every line of the site key's paper that does not begin with #, then Ctrl-D.")
            return read_paper(sys.stdin)
        return read_paper(Path(source).read_text("utf-8").splitlines())
    except CxrError as error:
        raise AuthorityError(str(error)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise AuthorityError(
            f"The paper {source} cannot be read ({getattr(error, 'strerror', None) or 'it is no text'})."
        ) from None
