"""What goes onto a device and into the centre is listed, licensed, not known to be unsafe, and holds no secrets."""

import importlib.metadata
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.version import Version

from edge.network.manifest import SHIPPED, read_manifest
from edge.page.session import make_pin
from edge.privacy.key_paper import paper_lines
from edge.privacy.pseudonym import make_site_key
from firmware_configs.supply_chain import sbom as module
from firmware_configs.supply_chain.floors import FLOORS, all_below, below, read_floors
from firmware_configs.supply_chain.licences import PAGE, is_permissive, licences, page
from firmware_configs.supply_chain.pinned import CENTRE_LOCK, NotALock, all_locks, device_locks, read_lock
from firmware_configs.supply_chain.sbom import InvalidSbom, sbom
from firmware_configs.supply_chain.secrets import secrets_in
from tests.support.authority import Authority

ROOT = Path(__file__).resolve().parents[2]
HASH = "a" * 64
LOCK = f"# a comment\nnumpy==2.4.6 --hash=sha256:{HASH}\npip==26.0 \\\n    --hash=sha256:{HASH} \\\n    --hash=sha256:{'b' * 64}\n"


@pytest.fixture
def lock(tmp_path):
    path = tmp_path / "board-py311.txt"
    path.write_text(LOCK)
    return path


def test_a_lock_is_read_in_both_forms_that_pip_knows(lock):
    numpy, pip = read_lock(lock)
    assert (numpy.name, numpy.version, numpy.sha256) == ("numpy", "2.4.6", (HASH,))
    assert pip.sha256 == (HASH, "b" * 64)


@pytest.mark.parametrize("line", ["numpy==2.4.6", f"numpy>=2 --hash=sha256:{HASH}", "numpy==2.4.6 --hash=sha256:abc", "-e ."])
def test_what_is_not_pinned_and_hashed_is_no_lock(lock, line):
    lock.write_text(LOCK + line + "\n")
    with pytest.raises(NotALock, match="make locks"):
        read_lock(lock)


def test_every_committed_lock_is_one():
    assert len(device_locks()) >= 8
    assert CENTRE_LOCK in all_locks()
    assert all(read_lock(path) for path in all_locks())


@pytest.mark.parametrize("path", [*device_locks(), CENTRE_LOCK], ids=lambda path: path.stem)
def test_the_list_of_a_lock_follows_the_schema_and_holds_all_of_it(path):
    name = "cxr-broker" if path == CENTRE_LOCK else "cxr-edge"
    text = sbom(path, name)
    assert text == sbom(path, name), "the same lock gives the same bytes"
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    made = json.loads(text)
    packages = {part["name"]: part for part in made["components"] if part["type"] == "library"}
    for pinned in read_lock(path):
        part = packages.pop(pinned.name)
        assert (part["version"], part["purl"]) == (pinned.version, f"pkg:pypi/{pinned.name}@{pinned.version}")
        assert {entry["content"] for entry in part["hashes"]} == set(pinned.sha256)
        assert part["licenses"]
    assert not packages
    networks = [part for part in made["components"] if part["type"] == "machine-learning-model"]
    digests = [entry["content"] for network in networks for entry in network["hashes"]]
    assert digests == ([read_manifest(SHIPPED).model_sha256] if name == "cxr-edge" else [])
    depends = next(entry for entry in made["dependencies"] if entry["ref"] == name)
    assert len(depends["dependsOn"]) == len(made["components"])


def test_a_list_that_breaks_the_schema_is_not_handed_out(lock, monkeypatch):
    monkeypatch.setattr(module.uuid, "uuid5", lambda *_: type("No", (), {"urn": "no urn"})())
    with pytest.raises(InvalidSbom, match="board-py311"):
        sbom(lock, "cxr-edge")


def test_every_package_of_a_lock_has_a_licence_and_no_licence_is_of_nothing():
    locked = {pinned.name for path in all_locks() for pinned in read_lock(path)}
    assert locked <= set(licences())
    assert set(licences()) - locked <= {"tflite-runtime"}, "32-bit ARM's"


def test_the_licences_are_what_the_installed_packages_declare():
    compared = 0
    for name, expression in licences().items():
        try:
            declared = importlib.metadata.metadata(name).get("License-Expression")
        except importlib.metadata.PackageNotFoundError:
            continue
        if declared:
            assert declared == expression, name
            compared += 1
    assert compared > 15


@pytest.mark.parametrize(
    ("expression", "permissive"),
    [
        ("MIT", True),
        ("EPL-2.0 OR BSD-3-Clause", True),
        ("MPL-2.0 AND MIT", False),
        ("LGPL-3.0-only", False),
        ("GPL-2.0-only", False),
    ],
)
def test_what_asks_for_more_than_to_be_named_is_flagged(expression, permissive):
    assert is_permissive(expression) == permissive


def test_the_page_of_licences_is_that_of_the_locks():
    assert PAGE.read_text("utf-8") == page(), "make supply-chain writes it"
    flagged = [line.split(" | ")[0].removeprefix("| ") for line in page().splitlines() if "**not permissive**" in line]
    assert flagged == ["psycopg", "psycopg-binary", "tqdm"]


def test_no_lock_has_a_version_that_is_known_to_be_unsafe():
    assert all_below() == []


def test_a_version_below_its_floor_is_told_with_the_reason(lock):
    lock.write_text(LOCK.replace("pip==26.0", "pip==25.2"))
    (said,) = below(lock, read_floors())
    assert "pip 25.2 is older than 25.3" in said
    assert "CVE-2025-8869" in said
    lock.write_text(LOCK.replace("pip==26.0", "pip==25.10"))
    assert below(lock, read_floors()) == [], "versions are compared as versions"


def test_every_floor_is_of_a_package_that_is_locked_and_gives_a_reason(tmp_path):
    locked = {pinned.name for path in all_locks() for pinned in read_lock(path)}
    floors = read_floors()
    assert {floor.name for floor in floors} <= locked
    assert len(floors) == len({floor.name for floor in floors}) > 10
    assert all(isinstance(floor.version, Version) and len(floor.reason) > 15 for floor in floors)
    (tmp_path / "floors.txt").write_text(FLOORS.read_text() + "numpy > 3\n")
    with pytest.raises(ValueError, match="not of the form"):
        read_floors(tmp_path / "floors.txt")


@pytest.mark.parametrize("folder", ["edge", "export", "broker", "firmware_configs"])
def test_what_goes_into_wheels_packages_and_images_holds_no_secret(folder):
    assert list(secrets_in(ROOT / folder)) == []


def planted(folder, kind):
    """Write one secret as the project itself writes it, or as a person would."""
    if kind == "a private key":
        (folder / "a.txt").write_bytes(Authority(folder.parent / "ca").client("clinic-1").key.read_bytes())
    elif kind == "a site key":
        make_site_key(folder / "kept")
    elif kind == "a site key with its day":
        make_site_key(folder / "kept", "2026-01-31")
    elif kind == "the paper of a site key":
        key = make_site_key(folder.parent / "elsewhere")
        (folder / "notes.md").write_text("\n".join(paper_lines(key, "Clinic")))
    elif kind == "a PIN":
        make_pin(folder / "page.pin")
    else:
        (folder / "user-data").write_bytes(_WRITTEN[kind])


_WRITTEN = {
    "an enrolment file": b"CXR enrolment 1  \n\0\1\2",
    "a sealed file": b"CXR sealed file 1\n\0\1\2",
    "the hash of a password": b"    passwd: $6$rounds=4096$abcdefgh$" + b"x" * 86,
    "a password": b"    plain_text_passwd: raspberry\n",
    "the key of a Wi-Fi": b'network={\n  ssid="clinic"\n  psk="correct horse"\n}\n',
}
_KINDS = ("a private key", "a site key", "a site key with its day", "the paper of a site key", "a PIN", *_WRITTEN)


@pytest.mark.parametrize("kind", _KINDS)
def test_a_planted_secret_is_found_wherever_it_lies(tmp_path, kind):
    folder = tmp_path / "content"
    folder.mkdir()
    (folder / "harmless.toml").write_text('private_key = "identity/device.pem"\npassword: ""\n')
    assert list(secrets_in(folder)) == []
    planted(folder, kind)
    (found, *_) = secrets_in(folder)
    assert "harmless" not in found[0]
    wheel, tar = tmp_path / "a.whl", tmp_path / "package.tar"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in folder.iterdir():
            archive.write(path, path.name)
    with tarfile.open(tar, "w") as outer:
        outer.add(wheel, "wheels/a.whl")
    compressed = tmp_path / "package.tar.xz"
    with tarfile.open(compressed, "w:xz") as outer:
        outer.add(wheel, "wheels/a.whl")
    for package in (wheel, tar, compressed):
        ((place, what), *_) = secrets_in(package)
        assert what == found[1]
        assert place.endswith(Path(found[0]).name)


def test_the_command_says_where_and_fails(tmp_path):
    (tmp_path / "user-data").write_bytes(_WRITTEN["a password"])
    command = [sys.executable, "-m", "firmware_configs.supply_chain", "secrets", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (1, f"{tmp_path}/user-data: a password\n")
    (tmp_path / "user-data").write_bytes(b"")
    assert subprocess.run(command, timeout=60, check=False, cwd=ROOT).returncode == 0


def test_a_damaged_archive_is_looked_at_as_a_file(tmp_path):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        tar.add(__file__, "x")
    (tmp_path / "a.tar.gz").write_bytes(content.getvalue()[:50])
    assert list(secrets_in(tmp_path)) == []


@pytest.mark.parametrize(
    ("says", "status", "ends"),
    [
        ("Found 1 known vulnerability in 1 package", 1, 1),
        ("ERROR:pip_audit._cli:ai-edge-litert: Dependency not found and could not be audited", 1, 0),
        ("No known vulnerabilities found", 0, 0),
    ],
)
def test_what_pip_audit_finds_fails_and_what_it_cannot_ask_does_not(tmp_path, says, status, ends):
    program = tmp_path / "pip_audit"
    program.mkdir()
    (program / "__init__.py").touch()
    (program / "__main__.py").write_text(f"import sys\nprint({says!r}, file=sys.stderr)\nsys.exit({status})\n")
    command = [sys.executable, "-m", "firmware_configs.supply_chain", "audit"]
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT
    )
    assert done.returncode == ends
    assert "No package of a lock is below its floor" in done.stdout
    assert says in done.stdout + done.stderr
    offline = subprocess.run([*command, "--offline"], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert (offline.returncode, "pip-audit" in offline.stdout) == (0, False)
