"""The authority: made whole or made again, and what it signs."""

from __future__ import annotations

import base64
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from broker.errors import AuthorityError
from broker.fleet.authority import Authority, Settings
from broker.fleet.certificates import LONG, certificate_pem, new_key, new_root
from broker.fleet.founding import found, renew_servers
from broker.fleet.revoking import revoke
from edge.enrolment.file import unlock
from edge.enrolment.identity import Unfit, new_key_pair, require_fit, require_whole
from tests.support.fleet_folder import SETTINGS, T0, Clock, killed_at_each_write, one


def test_an_authority_that_was_cut_off_while_it_was_made_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "authority"

    def work() -> None:
        if (folder / "authority.json").exists():
            Authority(folder)
            raise AssertionError("it counts before it is whole")
        assert found(folder, SETTINGS, T0)

    assert killed_at_each_write(monkeypatch, work) >= 12
    authority = Authority(folder)
    root = x509.load_pem_x509_certificate(authority.ca.read_bytes())
    for name in ("broker", "aggregator", "operator", "dashboard", "centre"):
        x509.load_pem_x509_certificate(authority.files(name).cert.read_bytes()).verify_directly_issued_by(root)
    assert not found(folder, SETTINGS, T0)


def test_dates(authority: Authority, tmp_path: Path) -> None:
    made = one(authority, tmp_path / "out", use_within=timedelta(days=30))
    code = next(line.split()[1] for line in made.paper.read_text().splitlines() if line.startswith("Code"))
    content = unlock(made.file.read_bytes(), code)
    assert content.use_before == (T0 + timedelta(days=30)).date()
    certificate = x509.load_pem_x509_certificate(content.identity.encode())
    assert certificate.not_valid_after_utc == T0 + timedelta(days=60 + 365)
    assert certificate.not_valid_before_utc == authority.maker.certificate.not_valid_before_utc == T0 - timedelta(days=365)
    assert (content.url, content.https) == ("mqtts://centre.example:8883", "https://centre.example:8444")
    for name in ("ca", "broker", "aggregator", "operator", "dashboard", "centre"):
        read = x509.load_pem_x509_certificate((authority.folder / f"{name}.pem").read_bytes())
        assert read.not_valid_after_utc == T0 + LONG
    crl = x509.load_pem_x509_crl(authority.crl.read_bytes())
    assert crl.next_update_utc == T0 + LONG


def test_the_servers_are_reached_under_all_their_names(authority: Authority) -> None:
    def names() -> set[str]:
        read = x509.load_pem_x509_certificate(authority.files("broker").cert.read_bytes())
        return {str(name.value) for name in read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value}

    assert names() == {"centre.example", "192.0.2.7", "2001:db8::1", "localhost", "127.0.0.1", "::1"}
    renew_servers(authority.folder, Settings(["other.example"]), T0)
    assert names() == {"other.example", "localhost", "127.0.0.1", "::1"}
    assert Settings(["2001:db8::1"]).url == "mqtts://[2001:db8::1]:8883"


@pytest.mark.parametrize("host", ["", "a b", "1.2.3", "256.1.1.1", "-x", "x/y", "a:1", "ä.example", "a" * 64 + ".example", "x\n"])
def test_what_is_no_host(tmp_path: Path, host: str) -> None:
    with pytest.raises(AuthorityError, match="neither a name nor an address"):
        found(tmp_path / "authority", Settings([host]), T0)
    assert not (tmp_path / "authority").exists()


def test_a_later_list_has_a_later_date_whatever_the_clock_says(authority: Authority, tmp_path: Path, clock: Clock) -> None:
    dates = []
    for number in range(4):
        clock.now = T0 - timedelta(days=number * 100)  # the centre's clock is set back
        with authority.turn():
            pass
        made = one(authority, tmp_path / "out", f"clinic-{number}")
        revoke(authority, made.device)
        crl = x509.load_pem_x509_crl(authority.crl.read_bytes())
        assert crl.last_update_utc < T0
        dates.append(crl.last_update_utc)
    assert dates == sorted(set(dates))


def test_a_root_of_a_damaged_folder_is_told_of(authority: Authority) -> None:
    (authority.folder / "ca.key").write_bytes(b"x")
    with pytest.raises(AuthorityError, match="put them back"):
        _ = Authority(authority.folder).maker
    (authority.folder / "authority.json").write_text("{}")
    with pytest.raises(AuthorityError, match="damaged"):
        Authority(authority.folder)
    (authority.folder / "authority.json").unlink()
    (authority.folder / "journal.jsonl").write_text("")
    with pytest.raises(AuthorityError, match="put it back"):
        found(authority.folder, SETTINGS, T0)


def test_what_does_not_fit_a_device(authority: Authority) -> None:
    root, stranger, pair = authority.maker, new_root("other", T0), new_key_pair("clinic-1")
    public, ca = pair.key.public_key(), certificate_pem(root.certificate)

    def fits(certificate: x509.Certificate) -> None:
        require_fit(certificate_pem(certificate).decode(), public, "clinic-1", ca)

    year = timedelta(days=365)
    fits(root.client("clinic-1", public, T0, year))
    for certificate, why in (
        (root.client("clinic-2", public, T0, year), "it is for clinic-2"),
        (root.client("clinic-1", new_key().public_key(), T0, year), "another key"),
        (stranger.client("clinic-1", public, T0, year), "another authority"),
        (root.server("clinic-1", public, ["x"], T0), "not for a device"),
        (root.sealer("clinic-1", public, T0), "not for a device"),
    ):
        with pytest.raises(Unfit, match=why):
            fits(certificate)
    with pytest.raises(Unfit, match="cannot be read"):
        require_fit("x", public, "clinic-1", ca)
    sound = root.client("clinic-1", public, T0, year).public_bytes(serialization.Encoding.DER)
    curve = bytes.fromhex("06082a8648ce3d030107")  # P-256
    for begin, instead in ((b"c-1", b"\xff\xfe1"), (b"\x0c\x08clin", b"\x02\x08clin"), (curve, curve[:-1] + b"\x7f")):
        assert begin in sound
        body = base64.encodebytes(sound.replace(begin, instead)).decode()
        with pytest.raises(Unfit, match="cannot be read"):
            require_fit(f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n", public, "clinic-1", ca)
    with pytest.raises(Unfit, match="its key cannot be read"):
        require_whole(certificate_pem(root.client("clinic-1", public, T0, year)).decode(), "clinic-1", ca.decode())
