"""A CycloneDX list of what one lock installs, with the project itself and its network; the same lock gives the same bytes."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

import edge
from edge.network.manifest import SHIPPED, read_manifest
from firmware_configs.supply_chain.licences import licences
from firmware_configs.supply_chain.pinned import Pinned, read_lock

_SCHEMA = SchemaVersion.V1_6


class InvalidSbom(ValueError):
    """What was made does not follow the schema of CycloneDX."""


def sbom(lock: Path, name: str, version: str = edge.__version__) -> str:
    """Return CycloneDX JSON (1.6) of what a lock installs for `name`, which is cxr-edge (a device) or cxr-broker (the centre).

    It has no time of its making and a serial number that follows from its content.

    Raises:
        NotALock: if the lock is none.
        KeyError: if the licence of a package is not known.
        InvalidSbom: if the result breaks the schema.
    """
    packages = read_lock(lock)
    known, make = licences(), LicenseFactory()
    root = Component(name=name, version=version, type=ComponentType.APPLICATION, bom_ref=name)
    root.licenses.add(make.make_from_string("Apache-2.0"))
    bom = Bom()
    bom.metadata.component = root
    bom.metadata.timestamp = None  # type: ignore[assignment]
    parts = [_package(one, known[one.name]) for one in packages]
    if name == "cxr-edge":
        parts.append(_network())
    for part in parts:
        bom.components.add(part)
    bom.register_dependency(root, parts)
    made = json.loads(make_outputter(bom, OutputFormat.JSON, _SCHEMA).output_as_string())
    made["metadata"].pop("timestamp", None)
    made.pop("serialNumber", None)
    content = json.dumps(made, sort_keys=True)
    made["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_OID, content).urn
    text = json.dumps(made, indent=1, sort_keys=True) + "\n"
    wrong = JsonStrictValidator(_SCHEMA).validate_str(text)
    if wrong is not None:
        raise InvalidSbom(f"{lock.name}: {wrong}")
    return text


def _package(one: Pinned, licence: str) -> Component:
    purl = PackageURL("pypi", None, one.name, one.version)
    made = Component(name=one.name, version=one.version, type=ComponentType.LIBRARY, purl=purl, bom_ref=str(purl))
    made.licenses.add(LicenseFactory().make_from_string(licence))
    for digest in one.sha256:
        made.hashes.add(HashType(alg=HashAlgorithm.SHA_256, content=digest))
    return made


def _network() -> Component:
    manifest = read_manifest(SHIPPED)
    made = Component(
        name=manifest.name,
        version=manifest.version,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="network",
        description="The shipped network; for research use, see edge/models/chest/LICENSE.",
    )
    made.hashes.add(HashType(alg=HashAlgorithm.SHA_256, content=manifest.model_sha256))
    return made
