"""What the command line takes, and which processes a configuration asks for."""

import pytest

from edge.cli import parser
from edge.commands.processes import names
from edge.config import Device, Dicom, Pacs, Page, Watch


@pytest.mark.parametrize("limit", ["0", "1000001", "99999999999999999999999", "9" * 5000, "-1", "x", ""])
def test_a_count_that_makes_no_sense_is_refused_in_one_sentence(capsys, limit):
    with pytest.raises(SystemExit):
        parser().parse_args(["outbox", "--config", "device.toml", f"--limit={limit}"])
    assert capsys.readouterr().err.endswith("argument --limit: a whole number from 1 to 1000000 is wanted\n")


@pytest.mark.parametrize("limit", [1, 1_000_000])
def test_a_count_within_bounds_is_taken(limit):
    assert parser().parse_args(["outbox", "--config", "device.toml", "--limit", str(limit)]).limit == limit


def test_a_device_runs_what_is_configured():
    common = {"device": "d", "facility": "f", "state": "s", "site_key": "k", "watch": Watch(folder="w")}
    assert names(Device(**common)) == ["watch", "infer", "relay"]
    pacs = Pacs(address="127.0.0.1", called_ae_title="P")
    assert names(Device(**common, pacs=pacs)) == ["watch", "infer", "relay", "pacs"]
    full = Device(**common, dicom=Dicom(), pacs=pacs, page=Page(pin="p"))
    assert names(full) == ["watch", "infer", "relay", "dicom", "pacs", "page"]
