"""The command line of the installer, and the only place where its parts are put together."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .checks import disk_trouble, require_root
from .errors import Refused, WentBack
from .install import Installation, Request, only_one
from .machine import this_machine
from .package import open_package
from .places import Places
from .trial import Change
from .uninstall import uninstall
from .units import Systemd

_HERE = Path(__file__).resolve().parents[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; returns the exit status: 0, 1 (the new version did not work), 2 (refused)."""
    given = _reader().parse_args(arguments)
    places, machine, manager = Places(), this_machine(), Systemd()
    change = Change(places, manager, patience_s=given.patience)
    try:
        require_root(machine)
        with only_one(places):
            if given.confirm:
                if said := change.settle():
                    _say(said)
            elif given.uninstall:
                uninstall(places, manager, _say, purge=given.purge, even_unsent=given.even_unsent, dry_run=given.dry_run)
            else:
                if not (_HERE / "wheels").is_dir():
                    raise Refused("This is the installed copy, which confirms and uninstalls: install from an unpacked package.")
                request = Request(given.profile, given.enrol, given.code_file, given.image, given.dry_run)
                Installation(request, open_package(_HERE), machine, places, manager, change, _say).run()
    except Refused as error:
        return _complain(str(error), 2)
    except WentBack as error:
        return _complain(str(error), 1)
    except OSError as error:
        return _complain(disk_trouble(error, Path(error.filename or "/")), 2)
    except KeyboardInterrupt:
        return _complain("Stopped; run it again to go on.", 130)
    return 0


def _reader() -> argparse.ArgumentParser:
    reader = argparse.ArgumentParser("install.sh", description="Install or upgrade cxr-edge on this board. No internet is needed.")
    reader.add_argument("--enrol", type=Path, metavar="FILE", help="the enrolment file that the centre has made for this device")
    reader.add_argument("--code-file", type=Path, metavar="FILE", help="its code, instead of typing it")
    reader.add_argument(
        "--profile", default="", metavar="NAME", help="the kind of board, if it is not recognised: a name or a file"
    )
    reader.add_argument("--image", action="store_true", help="for a card whose board is enrolled at its first start")
    reader.add_argument("--dry-run", action="store_true", help="check and say what would be done; change nothing")
    reader.add_argument("--uninstall", action="store_true", help="remove the software; results, keys and configuration stay")
    reader.add_argument("--purge", action="store_true", help="with --uninstall: remove these too")
    reader.add_argument("--even-unsent", action="store_true", help="with --purge: also what has not reached the centre")
    reader.add_argument("--confirm", action="store_true", help=argparse.SUPPRESS)
    reader.add_argument("--patience", type=float, default=300.0, help=argparse.SUPPRESS)
    return reader


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _complain(sentence: str, status: int) -> int:
    sys.stderr.write(f"install.sh: {sentence}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
