"""What a person can get wrong about the clinic's page is said by `cxr-edge check`, as the page itself would say it."""

import socket

import pytest

from edge.cli import parser
from edge.commands.check import check_device
from edge.commands.setup_device import set_up
from edge.config import load_config
from edge.errors import ConfigError
from edge.page import readiness
from edge.page.server import serve
from edge.unattended.lifecycle import only_one
from edge.unattended.notify import NOBODY, nothing
from tests.support.authority import Authority
from tests.support.processes import free_port


@pytest.fixture
def config(tmp_path):
    """Writes further lines into [page]; returns the path."""

    def write(port, *lines):
        set_up(tmp_path, "clinic-1", "Clinic", "mqtt://127.0.0.1:1", port)
        path = tmp_path / "device.toml"
        path.write_text(path.read_text().replace("[relay]", "\n".join([*lines, "", "[relay]"])))
        return path

    return write


def finding_of(path):
    return {finding.subject: finding for finding in check_device(load_config(path))}["page"]


def test_check_says_where_the_page_is(config):
    port = free_port()
    finding = finding_of(config(port))
    assert (finding.ok, finding.text) == (True, f"http://127.0.0.1:{port}; this machine alone can open it")


@pytest.mark.parametrize(("address", "host"), [("192.168.7.20", "192.168.7.20"), (None, "clinic-7.lan")])
def test_a_page_on_every_network_is_found_by_an_address_of_the_machine(config, monkeypatch, address, host):
    monkeypatch.setattr(socket, "gethostname", lambda: "clinic-7.lan")
    monkeypatch.setattr(readiness, "own_address", lambda: address)
    port = free_port()
    path = config(port)
    path.write_text(path.read_text().replace('address = "127.0.0.1"', 'address = "0.0.0.0"'))
    assert finding_of(path).text == f"http://{host}:{port}; or by any other address of this machine"


def test_an_own_address_is_one_that_can_be_listened_at():
    address = readiness.own_address()
    if address is not None:
        with socket.create_server((address, 0)):
            pass


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (['certificate = "a.pem"'], "TLS needs both"),
        (['private_key = "a.key"'], "TLS needs both"),
        (['certificate = "a.pem"', 'private_key = "a.key"'], "The TLS files of [page] cannot be used"),
    ],
)
def test_what_keeps_the_page_from_being_served_is_found_before(config, lines, says):
    path = config(free_port(), *lines)
    finding = finding_of(path)
    assert (finding.ok, finding.fatal) == (False, True)
    assert says in finding.text
    with pytest.raises(ConfigError) as refused:
        serve(None, load_config(path).page, NOBODY, nothing)
    assert str(refused.value) == finding.text


def test_a_certificate_of_another_key_is_found(config, tmp_path):
    authority = Authority(tmp_path / "tls")
    first, second = authority.server("a"), authority.server("b")
    finding = finding_of(config(free_port(), f'certificate = "{first.cert}"', f'private_key = "{second.key}"'))
    assert not finding.ok
    assert "The TLS files of [page] cannot be used" in finding.text


def test_a_port_in_use_is_a_problem_unless_the_page_itself_uses_it(config, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        path = config(other.getsockname()[1])
        assert "in use by another program. Take another [page] port" in finding_of(path).text
        assert not finding_of(path).ok
        with only_one(tmp_path / "state", "page"):
            assert finding_of(path).ok


def test_the_help_of_run_names_every_process():
    text = parser().format_help()
    assert all(name in text.partition("under one supervisor")[0] for name in ("watch", "infer", "relay", "dicom", "page"))
