"""What `make supply-chain` and `make audit` run: see `main`. Each command loads what it needs; lists of parts are slow to load."""

from __future__ import annotations

import argparse
import configparser
import re
import subprocess
import sys
from pathlib import Path

from firmware_configs.wheelhouse.targets import ROOT, Target

_SBOMS = ROOT / "build" / "sbom"


def main() -> int:
    """Run one of the commands; returns an exit status."""
    reader = argparse.ArgumentParser("supply_chain", description="What goes onto a device and into the centre.")
    commands = reader.add_subparsers(required=True, metavar="COMMAND")
    for name, command, text in (
        ("lock-centre", _lock_centre, "write the lock of the centre (needs the package index)"),
        ("write", _write, "write docs/reference/licences.md and a CycloneDX list of every lock into build/sbom"),
        ("audit", _audit, "look for what is known to be unsafe in the locks: the floor list, and pip-audit where a network allows"),
    ):
        commands.add_parser(name, help=text).set_defaults(command=command)
    commands.choices["audit"].add_argument("--offline", action="store_true", help="the floor list alone")
    scan = commands.add_parser("secrets", help="look for keys, PINs and passwords in files, folders, wheels and tars")
    scan.add_argument("paths", nargs="+", type=Path)
    scan.set_defaults(command=_secrets)
    given = reader.parse_args()
    return int(given.command(given))


def _lock_centre(_: argparse.Namespace) -> int:
    from firmware_configs.supply_chain.pinned import CENTRE_LOCK
    from firmware_configs.wheelhouse.locks import lock_lines
    from firmware_configs.wheelhouse.resolve import NotCollected, resolve

    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    text = setup["options"]["install_requires"] + "\n" + setup["options.extras_require"]["broker"]
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    try:
        CENTRE_LOCK.write_text(lock_lines(resolve(Target("x86_64", "311"), lines)), "utf-8")
    except NotCollected as error:
        return _complain(str(error))
    return 0


def _write(_: argparse.Namespace) -> int:
    from firmware_configs.supply_chain.licences import PAGE, page
    from firmware_configs.supply_chain.pinned import CENTRE_LOCK, device_locks
    from firmware_configs.supply_chain.sbom import sbom

    PAGE.write_text(page(), "utf-8")
    _SBOMS.mkdir(parents=True, exist_ok=True)
    for lock in device_locks():
        (_SBOMS / f"cxr-edge-{lock.stem}.cdx.json").write_text(sbom(lock, "cxr-edge"), "utf-8")
    (_SBOMS / f"cxr-broker-{CENTRE_LOCK.stem}.cdx.json").write_text(sbom(CENTRE_LOCK, "cxr-broker"), "utf-8")
    return 0


def _audit(given: argparse.Namespace) -> int:
    from firmware_configs.supply_chain.floors import all_below
    from firmware_configs.supply_chain.pinned import all_locks

    unsafe = all_below()
    if unsafe:
        return _complain("\n".join(unsafe))
    sys.stdout.write("No package of a lock is below its floor (firmware_configs/locks/floors.txt).\n")
    for lock in [] if given.offline else all_locks():
        options = ["--strict", "--disable-pip", "--require-hashes", "--progress-spinner=off", f"--requirement={lock}"]
        done = subprocess.run([sys.executable, "-m", "pip_audit", *options], capture_output=True, text=True, check=False)
        said = (done.stdout + done.stderr).strip()
        if done.returncode == 0:
            sys.stdout.write(f"{lock.name}: {said}\n")
        elif re.search(r"Found \d+ known vulnerabilit", done.stderr):  # all else is that it could not ask
            return _complain(f"{lock.name}: {said}")
        else:
            last = said.splitlines()[-1] if said else "it said nothing"
            sys.stdout.write(f"pip-audit could not ask, so the floor list is all that is known: {last}\n")
            break
    return 0


def _secrets(given: argparse.Namespace) -> int:
    from firmware_configs.supply_chain.secrets import secrets_in

    found = [f"{place}: {what}" for path in given.paths for place, what in secrets_in(path)]
    return _complain("\n".join(found)) if found else 0


def _complain(text: str) -> int:
    sys.stderr.write(text + "\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
