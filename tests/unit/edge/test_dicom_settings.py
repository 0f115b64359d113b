"""What a person can get wrong about the listener is said before it is started; what does not need it does not load it."""

import socket
import subprocess
import sys

import pytest

from edge.commands.check import check_device
from edge.commands.setup_device import set_up
from edge.config import load_config
from edge.errors import ConfigError
from edge.unattended.lifecycle import is_running, only_one
from tests.support.processes import free_port


@pytest.fixture
def config(tmp_path):
    """Writes [dicom] lines behind what `init` makes; returns the path."""
    set_up(tmp_path, "clinic-1", "Clinic", "mqtt://127.0.0.1:1")

    def write(*lines):
        path = tmp_path / "device.toml"
        path.write_text(path.read_text() + "\n[dicom]\n" + "\n".join(lines) + "\n")
        return path

    return write


def listener_of(path):
    return {finding.subject: finding for finding in check_device(load_config(path))}.get("DICOM listener")


ALLOW = 'allow = ["XRAY1@127.0.0.1", "XRAY2@127.0.0.2:104"]'


def test_without_the_table_there_is_no_listener(tmp_path):
    set_up(tmp_path, "clinic-1", "Clinic", "mqtt://127.0.0.1:1")
    assert load_config(tmp_path / "device.toml").dicom is None
    assert listener_of(tmp_path / "device.toml") is None


def test_check_says_what_the_listener_does(config):
    port = free_port()
    finding = listener_of(config(ALLOW, f"port = {port}"))
    assert finding.ok
    assert finding.text == f"CXR-EDGE at 127.0.0.1:{port} for 2 machines, not encrypted"


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([], "allow is empty"),
        (['allow = ["XRAY1"]'], "AETITLE@ADDRESS"),
        ([ALLOW, 'address = "192.0.2.1"'], "is no address of this machine"),
        ([ALLOW, 'certificate = "a.pem"'], "private_key is missing"),
        ([ALLOW, 'certificate = "a.pem"', 'private_key = "a.key"', 'ca = "ca.pem"'], "cannot be used"),
    ],
)
def test_check_says_what_is_wrong(config, lines, says):
    finding = listener_of(config(*lines, f"port = {free_port()}"))
    assert not finding.ok
    assert finding.fatal
    assert says in finding.text


def test_a_port_in_use_is_a_problem_unless_the_device_itself_uses_it(config, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        path = config(ALLOW, f"port = {other.getsockname()[1]}")
        finding = listener_of(path)
        assert not finding.ok
        assert "in use by another program" in finding.text
        with only_one(tmp_path / "state", "dicom"):
            assert is_running(tmp_path / "state", "dicom")
            assert listener_of(path).ok
    assert not is_running(tmp_path / "state", "dicom")


@pytest.mark.parametrize(
    "line", ['ae_title = ""', 'ae_title = "seventeen letters"', 'ae_title = "A\\\\B"', "port = 0", "max_pdu = 0", "silent_s = 0"]
)
def test_a_value_that_makes_no_sense_is_refused(config, line):
    with pytest.raises(ConfigError, match="device-toml"):
        load_config(config(line))


def test_only_the_dicom_process_loads_pynetdicom():
    code = """
import sys
import edge.cli, edge.commands.check, edge.config, edge.delivery.relay, edge.infer.inference, edge.intake.watch
import edge.outbox.writer, edge.pixels.decoder, edge.unattended.supervisor
sys.exit(any(name.partition(".")[0] in ("pynetdicom", "pydicom") for name in sys.modules))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_the_table_the_command_says_so(tmp_path):
    set_up(tmp_path, "clinic-1", "Clinic", "mqtt://127.0.0.1:1")
    command = [sys.executable, "-m", "edge.cli", "dicom", "--config", str(tmp_path / "device.toml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "has no [dicom] table" in done.stderr
