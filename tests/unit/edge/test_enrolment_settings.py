"""Filling values into a profile, and reading until when a certificate is good."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.fleet.certificates import certificate_pem, key_pem, new_key, new_root
from edge.config import load_config
from edge.enrolment.settings import fill
from edge.enrolment.validity import expired, good_until

PROFILES = sorted((Path(__file__).parents[3] / "firmware_configs" / "profiles").glob("*.toml"))
VALUES = {
    ("", "device"): "kisumu-3",
    ("relay", "url"): "mqtts://192.0.2.7:8883",
    ("relay", "https"): "https://192.0.2.7:8444",
    ("usb", "centre"): "identity/centre.pem",
}


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
def test_a_profile_keeps_its_comments_and_gets_its_values(profile: Path, tmp_path: Path) -> None:
    text = profile.read_text()
    filled = fill(text, VALUES)
    path = tmp_path / "device.toml"
    path.write_text(filled)
    device = load_config(path)
    assert (device.device, device.relay.url, device.relay.https) == tuple(VALUES.values())[:3]
    assert device.usb.centre.endswith("identity/centre.pem")
    assert [line.partition("#")[2] for line in text.splitlines() if "#" in line] == [
        line.partition("#")[2] for line in filled.splitlines() if "#" in line
    ]
    assert fill(filled, VALUES) == filled


def test_keys_of_the_same_name_in_other_tables_stay() -> None:
    text = 'device = "a"\n[[x]]\ndevice = "b"\n[relay] # here\nurl = \'old\' # why\n[y]\nurl = "not me"\n'
    read = msgspec.toml.decode(fill(text, {("", "device"): "A", ("relay", "url"): 'new "one"', ("z", "k"): "v", ("", "top"): "t"}))
    expected = {
        "top": "t",
        "device": "A",
        "x": [{"device": "b"}],
        "relay": {"url": 'new "one"'},
        "y": {"url": "not me"},
        "z": {"k": "v"},
    }
    assert read == expected


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40))
def test_any_text_is_written_so_that_it_is_read_back(value: str) -> None:
    assert msgspec.toml.decode(fill('a = "x"\n', {("", "a"): value, ("t", "b"): value})) == {"a": value, "t": {"b": value}}


@pytest.mark.parametrize("year", [2026, 2049, 2050, 2060])
def test_until_when_a_certificate_is_good(tmp_path: Path, year: int) -> None:
    until = datetime(year, 5, 6, 7, 8, 9, tzinfo=timezone.utc)
    root, key = new_root("root", datetime(year - 1, 1, 1, tzinfo=timezone.utc)), new_key()
    now = until - timedelta(days=30)
    path = tmp_path / "device.pem"
    path.write_bytes(key_pem(key) + certificate_pem(root.client("clinic-1", key.public_key(), now, timedelta(days=30))))
    assert good_until(path) == until
    assert expired(path, until) is None
    assert expired(path, until + timedelta(seconds=1)) == until


def test_what_is_no_certificate_has_no_end(tmp_path: Path) -> None:
    root = new_root("root", datetime(2026, 1, 1, tzinfo=timezone.utc))
    whole = certificate_pem(root.certificate)
    path = tmp_path / "device.pem"
    for content in (
        b"",
        b"x",
        whole[:200],
        b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        whole.replace(b"MII", b"AAA"),
    ):
        path.write_bytes(content)
        assert good_until(path) is None
    assert good_until(tmp_path / "none") is None
    assert good_until(tmp_path) is None
