"""The manifest of a bundle folder, read without a TFLite runtime."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edge import __version__
from edge.contract.bundle import BUNDLE_SCHEMA, MANIFEST_NAME, Manifest
from edge.errors import BundleError

SHIPPED = Path(__file__).parent / "models" / "chest"
REPAIR = "Install the software again, or copy the whole bundle folder from a good source."


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest alone, without loading the network (the relay and `cxr-edge check` do not need it).

    Raises:
        BundleError: if it is missing, unreadable, of another version, or for a newer software.
    """
    path = folder / MANIFEST_NAME
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except OSError as error:
        raise BundleError(f"There is no model at {folder} ({error.strerror}). {REPAIR}") from None
    except msgspec.DecodeError as error:
        raise BundleError(f"{path} is damaged: {error}. {REPAIR}") from None
    if manifest.schema != BUNDLE_SCHEMA:
        raise BundleError(
            f"{path} has bundle version {manifest.schema}, this software reads {BUNDLE_SCHEMA}. Upgrade the software."
        )
    if _parts(manifest.minimum_software) > _parts(__version__):
        raise BundleError(
            f"The model in {folder} needs version {manifest.minimum_software} of this software, which is {__version__}: it would "
            "apply only a part of what the model asks for. Upgrade the software."
        )
    return manifest


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3])
