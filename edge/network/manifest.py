"""The manifest of a bundle folder, read without a TFLite runtime."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from edge import __version__
from edge.contract.bundle import BUNDLE_SCHEMA, MANIFEST_NAME, Manifest
from edge.contract.errors import UNREADABLE
from edge.errors import BundleError

SHIPPED = Path(__file__).parent.parent / "models" / "chest"
REPAIR = "Install the software again, or copy the whole bundle folder from a good source."


class _Version(msgspec.Struct):
    schema: int = BUNDLE_SCHEMA


def bundle_folder(configured: str) -> Path:
    """Return the folder of `[model] bundle`; an empty one is that of the shipped network."""
    return Path(configured) if configured else SHIPPED


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest alone, without loading the network (the relay and `cxr-edge check` do not need it).

    Raises:
        BundleError: if it is missing, unreadable, of another version, or for a newer software.
    """
    path = folder / MANIFEST_NAME
    try:
        content = path.read_bytes()
        schema = msgspec.json.decode(content, type=_Version).schema
    except OSError as error:
        raise BundleError(f"There is no model at {folder} ({error.strerror}). {REPAIR}") from None
    except UNREADABLE as error:
        raise _damaged(path, error) from None
    if schema != BUNDLE_SCHEMA:
        cure = "Upgrade the software" if schema > BUNDLE_SCHEMA else "Take a bundle that was made for this software"
        raise BundleError(f"{path} has bundle version {schema}, this software reads {BUNDLE_SCHEMA}. {cure}.")
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except UNREADABLE as error:
        raise _damaged(path, error) from None
    if _parts(manifest.minimum_software) > _parts(__version__):
        raise BundleError(
            f"The model in {folder} needs version {manifest.minimum_software} of this software, which is {__version__}: it would "
            "apply only a part of what the model asks for. Upgrade the software."
        )
    return manifest


def digest_of(folder: Path) -> str:
    """Return the SHA-256 of a bundle's manifest, which names those of all its files: of two bundles that are not the same, another.

    Raises:
        BundleError: if it cannot be read.
    """
    try:
        return hashlib.sha256((folder / MANIFEST_NAME).read_bytes()).hexdigest()
    except OSError as error:
        raise BundleError(f"There is no model at {folder} ({error.strerror}). {REPAIR}") from None


def _damaged(path: Path, error: Exception) -> BundleError:
    return BundleError(f"{path} is damaged: {error}. {REPAIR}")


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3])
