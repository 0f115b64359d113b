"""What a person can get wrong is said in one sentence that tells what to do."""

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
import pytest

from edge.commands.check import check_device
from edge.commands.setup_device import set_up
from edge.config import load_config
from edge.contract.bundle import Runtime
from edge.errors import BundleError, ConfigError
from edge.network.bundle import load_bundle
from edge.network.classify import runtime
from edge.network.manifest import SHIPPED, read_manifest
from edge.privacy.pseudonym import load_site_key, make_site_key


@pytest.fixture
def config(tmp_path):
    set_up(tmp_path, "clinic-1", "Clinic no. 1", "mqtt://127.0.0.1:1")
    return tmp_path / "device.toml"


def test_what_init_writes_is_what_the_device_loads(config):
    device = load_config(config)
    assert (device.device, device.facility) == ("clinic-1", "Clinic no. 1")
    assert Path(device.watch.folder).is_dir()
    assert device.commissioning.readings == 100
    config.write_text(
        "\n".join(line for line in config.read_text().splitlines() if "commissioning" not in line and "readings" not in line)
    )
    assert load_config(config).commissioning.readings == 100, "without the table a device is silent too"
    assert load_site_key(Path(device.site_key)).key_id
    assert Path(device.site_key).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("windw = 20", "unknown field `windw`"),
        ("window = 19", ">= 20"),
        ("window = 101", "<= 100"),
        ('window = "many"', "Expected `int`"),
        ('url = "http://x"', "regex"),
        ("not toml at all", "is not TOML"),
        *((f'url = "mqtt://{place}"', "[relay] url") for place in ("h:99999", "h:abc", ":1883", "u:p@[::1", "h:0")),
        ('https = "https://h:99999"', "[relay] https"),
        ('https = "https://:443"', "[relay] https"),
        ("receipt_timeout_s = inf", "<= 86400.0"),
        ("receipt_timeout_s = nan", "> 0.0"),
        ("https_after_s = 1e9", "<= 86400.0"),
    ],
)
def test_a_mistake_in_the_configuration_is_named(config, line, says):
    text = config.read_text()
    key = line.split(" ")[0]
    config.write_text("\n".join(known for known in text.splitlines() if not known.startswith(f"{key} =")) + f"\n{line}\n")
    with pytest.raises(ConfigError, match=str(config)) as caught:
        load_config(config)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('folder = "inbox"', 'folder = "state/done"', "[watch] folder"),
        ('folder = "inbox"', 'folder = "state"', "[watch] folder"),
        ('folder = "inbox"', 'folder = "."', "[watch] folder"),
        ('folder = "inbox"', 'folder = "link"', "[watch] folder"),
        ("[watch]", '[dicom]\naddress = "printer"\n[watch]', "[dicom] address"),
        ("[watch]", "[decode]\nmemory_mb = 99999999999999\n[watch]", "<= 1048576"),
    ],
)
def test_what_could_only_fail_later_is_refused_at_once(config, old, new, says):
    (config.parent / "link").symlink_to(config.parent / "state" / "spool")
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new))
    with pytest.raises(ConfigError, match=re.escape(says)):
        load_config(config)


@pytest.mark.parametrize("broker", ["mqtt://h:99999", "mqtt://:1883", "mqtt://h:abc"])
def test_init_writes_no_broker_that_cannot_be_one(tmp_path, broker):
    with pytest.raises(ConfigError, match="--broker"):
        set_up(tmp_path, "clinic-1", "Clinic", broker)
    assert not list(tmp_path.iterdir())


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="cxr-edge init"):
        load_config(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigError, match="cxr-edge init"):
        load_site_key(tmp_path / "nowhere.key")
    (tmp_path / "bad.key").write_text("zz")
    with pytest.raises(ConfigError, match="is no site key"):
        load_site_key(tmp_path / "bad.key")


def test_init_overwrites_nothing_and_refuses_a_name_that_no_topic_can_hold(config, tmp_path):
    with pytest.raises(ConfigError, match="already there"):
        set_up(tmp_path, "clinic-1", "Clinic", "mqtt://127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"letters \(a to z\), digits, - and _"):
        set_up(tmp_path / "other", "clinic/1", "Clinic", "mqtt://127.0.0.1:1")
    with pytest.raises(ConfigError, match="The name of a clinic has letters"):
        set_up(tmp_path / "other", "clinic-1", "", "mqtt://127.0.0.1:1")
    with pytest.raises(ConfigError, match="A broker is mqtt://HOST:PORT"):
        set_up(tmp_path / "other", "clinic-1", "Clinic", "http://127.0.0.1:1")
    for port in (0, 65536, 99999):
        with pytest.raises(ConfigError, match="from 1 to 65535"):
            set_up(tmp_path / "other", "clinic-1", "Clinic", "mqtt://127.0.0.1:1", port)
    assert not (tmp_path / "other").exists()
    with pytest.raises(FileExistsError):
        make_site_key(tmp_path / "site.key")


def test_check_tells_what_works_and_what_does_not(config):
    findings = {finding.subject: finding for finding in check_device(load_config(config))}
    assert not findings["broker"].ok
    assert not findings["broker"].fatal, "without a broker results wait; nothing is lost"
    assert all(finding.ok or not finding.fatal for finding in findings.values())
    assert "centre by HTTPS" not in findings
    config.write_text(config.read_text() + 'https = "https://127.0.0.1:1"\n')
    findings = {finding.subject: finding for finding in check_device(load_config(config))}
    assert not findings["centre by HTTPS"].ok
    assert not findings["centre by HTTPS"].fatal
    assert "need ca, certificate and private_key" in findings["TLS files"].text
    (config.parent / "inbox").rmdir()
    findings = {finding.subject: finding for finding in check_device(load_config(config))}
    assert findings["watched folder"].fatal
    assert "Make the folder" in findings["watched folder"].text


@pytest.fixture
def bundle(tmp_path):
    shutil.copytree(SHIPPED, tmp_path / "bundle")
    return tmp_path / "bundle"


def change_manifest(bundle, **changes):
    path = bundle / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_the_shipped_bundle_is_whole_and_says_what_it_is():
    manifest = load_bundle().manifest
    assert manifest.classes == ["normal", "pneumonia", "covid19"]
    assert manifest.trained_on
    assert manifest.metrics
    assert (SHIPPED / "LICENSE").read_text().strip()
    assert (SHIPPED / "MODEL_CARD.md").read_text().strip()


def test_every_changed_byte_of_the_model_is_noticed(bundle):
    model = bundle / "model.tflite"
    content = bytearray(model.read_bytes())
    for place in np.random.default_rng(1).integers(0, len(content), 20):
        content[place] ^= 1
        model.write_bytes(content)
        with pytest.raises(BundleError, match="SHA-256 differs"):
            load_bundle(bundle)
        content[place] ^= 1


def test_a_model_that_computes_something_else_is_refused_by_its_golden_inputs(bundle):
    golden = msgspec.to_builtins(read_manifest(bundle).golden)
    golden[1]["scores"][runtime()][0] += 3 if golden[1]["scores"][runtime()][0] < 0 else -3
    change_manifest(bundle, golden=golden)
    with pytest.raises(BundleError, match=f"{runtime()} computes differently"):
        load_bundle(bundle)


def test_each_runtime_has_golden_scores_of_its_own(bundle, monkeypatch):
    other = next(name for name in get_args(Runtime) if name != runtime())
    golden = msgspec.to_builtins(read_manifest(bundle).golden)
    far = [abs(a - b) for row in golden for a, b in zip(*row["scores"].values(), strict=True)]
    assert max(far) > 1, "one list would do for both"
    monkeypatch.setattr("edge.network.bundle.runtime", lambda: other)
    with pytest.raises(BundleError, match=f"{other} computes differently"):
        load_bundle(bundle)
    for row in golden:
        del row["scores"][other]
    change_manifest(bundle, golden=golden)
    with pytest.raises(BundleError, match=f"never tried in {other}"):
        load_bundle(bundle)


@pytest.mark.parametrize("name", ["MODEL_CARD.md", "report.json", "LICENSE"])
def test_every_part_of_a_bundle_is_verified(bundle, name):
    path = bundle / name
    path.write_text(path.read_text() + " ")
    with pytest.raises(BundleError, match=f"{name} is not the file that its manifest names"):
        load_bundle(bundle)
    path.unlink()
    with pytest.raises(BundleError, match=f"{name} cannot be read"):
        load_bundle(bundle)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"schema": 3}, "Upgrade the software"),
        ({"schema": 1, "golden": []}, "Take a bundle that was made for this software"),
        ({"parts": {"../secret": "0" * 64}}, "is damaged"),
        ({"preprocessing": 99}, "wants preprocessing 99"),
        ({"classes": ["a", "b"]}, "does not fit its manifest"),
        ({"model_file": "other.tflite"}, "cannot be read"),
        ({"model_file": "../../etc/passwd.tflite"}, "is damaged"),
        ({"temperature": 0}, "is damaged"),
        ({"minimum_software": "0.10.0"}, "needs version 0.10.0"),
        ({"minimum_software": "soon"}, "is damaged"),
    ],
)
def test_a_bundle_that_is_not_for_this_software_is_refused(bundle, changes, says):
    change_manifest(bundle, **changes)
    with pytest.raises(BundleError, match=says):
        load_bundle(bundle)


def test_what_the_network_has_learned_is_verified_too(bundle):
    known = msgspec.to_builtins(read_manifest(bundle).known)
    small = np.zeros(2 * 3, "<f4").tobytes()
    (bundle / "known.f32").write_bytes(small)
    with pytest.raises(BundleError, match="SHA-256 differs"):
        load_bundle(bundle)
    change_manifest(bundle, known=known | {"sha256": hashlib.sha256(small).hexdigest()})
    with pytest.raises(BundleError, match="does not fit"):
        load_bundle(bundle)


def test_a_graph_of_another_kind_is_refused(bundle):
    (bundle / "model.tflite").write_bytes(b"TFL3 but no graph")
    change_manifest(bundle, model_sha256=hashlib.sha256(b"TFL3 but no graph").hexdigest())
    with pytest.raises(BundleError, match="cannot load"):
        load_bundle(bundle)
    with pytest.raises(BundleError, match="There is no model"):
        load_bundle(bundle / "nowhere")
