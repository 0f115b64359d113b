"""`make locks`: which exact files each target gets, written into firmware_configs/locks and committed.

A package made a year later holds the same software; newer versions come in by running this again, on purpose.
"""

from __future__ import annotations

import configparser
import sys
from collections.abc import Iterable

from firmware_configs.wheelhouse.resolve import Locked, NotCollected, resolve, sources
from firmware_configs.wheelhouse.targets import NARROW, PIP_LOCK, ROOT, Target, published_targets

# Not for 32-bit ARM: the other runtime and what it brings, decoders without wheels, what asks for them, and what its system has.
_WIDE_ONLY = {"ai-edge-litert", "backports-strenum", "flatbuffers", "ml-dtypes", "protobuf", "tqdm"} | {
    "highdicom",
    "numpy",
    "pillow",
    "pyjpegls",
    "python-gdcm",
}
_NARROW_RUNTIME = "tflite-runtime==2.14.0"
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


def narrow_lock() -> list[Locked]:
    """Return what 32-bit ARM gets: the versions of 64 bit, as far as they are for it, and the last tflite-runtime.

    Nothing is resolved here: of the versions that fit together, numpy and Pillow are those of its system.
    """
    wide = Target("aarch64", NARROW.python).lock.read_text("utf-8").splitlines()
    wanted = [line.split()[0] for line in wide if not line.startswith("#")]
    wanted = [line for line in wanted if line.partition("==")[0] not in _WIDE_ONLY] + [_NARROW_RUNTIME]
    compiled = [line for line in wanted if line.partition("==")[0] in NARROW.compiled]
    return sorted([*resolve(NARROW, set(wanted) - set(compiled), alone=True), *sources(compiled)])


def main() -> int:
    """Write every lock; returns an exit status."""
    try:
        for target in published_targets():
            target.lock.write_text(lock_lines(resolve(target, device_requirements())), "utf-8")
            sys.stdout.write(f"wrote {target.lock.relative_to(ROOT)}\n")
        NARROW.lock.write_text(lock_lines(narrow_lock()), "utf-8")
        PIP_LOCK.write_text(lock_lines(resolve(Target("x86_64", "310"), ["pip >= 24"])), "utf-8")
    except NotCollected as error:
        sys.stderr.write(f"make locks: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
