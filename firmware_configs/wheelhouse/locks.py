"""`make locks`: which exact files each target gets, written into firmware_configs/locks and committed.

A package made a year later holds the same software; newer versions come in by running this again, on purpose.
"""

from __future__ import annotations

import configparser
import sys
from collections.abc import Iterable

from firmware_configs.wheelhouse.resolve import Locked, NotCollected, resolve
from firmware_configs.wheelhouse.targets import PIP_LOCK, ROOT, Target, published_targets

_HEAD = "# Written by `make locks` from setup.cfg. One exact file for each line: no other is ever installed on a board.\n"


def device_requirements() -> list[str]:
    """Return what `cxr-edge[edge]` asks for, as lines of setup.cfg with their markers."""
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    text = setup["options"]["install_requires"] + "\n" + setup["options.extras_require"]["edge"]
    return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]


def lock_lines(files: Iterable[Locked]) -> str:
    """Return a requirements file for pip's --require-hashes."""
    return _HEAD + "".join(f"{one.name}=={one.version} --hash=sha256:{one.sha256}\n" for one in files)


def main() -> int:
    """Write every lock; returns an exit status."""
    try:
        for target in published_targets():
            target.lock.write_text(lock_lines(resolve(target, device_requirements())), "utf-8")
            sys.stdout.write(f"wrote {target.lock.relative_to(ROOT)}\n")
        PIP_LOCK.write_text(lock_lines(resolve(Target("x86_64", "310"), ["pip >= 24"])), "utf-8")
    except NotCollected as error:
        sys.stderr.write(f"make locks: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
