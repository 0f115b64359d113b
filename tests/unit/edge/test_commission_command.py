"""`cxr-edge commission` as a technician uses it, with `infer` away and at work; what the status and the check say."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from edge.commands.check import check_device
from edge.commissioning.command import ask, lines
from edge.commissioning.journal import Journal, journal_path
from edge.commissioning.silence import Site, open_silence
from edge.commissioning.standing import Reading, Released, Silenced
from edge.config import Commissioning, load_config
from edge.delivery.status import StatusWriter
from edge.errors import CxrError
from edge.infer.loop import do_requests
from edge.network.manifest import SHIPPED, digest_of, read_manifest
from edge.outbox.reader import OutboxReader
from edge.outbox.writer import Outbox
from edge.requests import ReleaseRequest, Requests
from edge.unattended.lifecycle import only_one
from tests.support.clinic import make_device

MANIFEST = read_manifest(SHIPPED)
SITE = Site(Commissioning(readings=2), digest_of(SHIPPED), MANIFEST.threshold)


@pytest.fixture
def device(tmp_path):
    made = make_device(tmp_path, "mqtt://127.0.0.1:1", readings=2)
    with closing(Outbox(made.state / "outbox.db", made.name)) as outbox, closing(open_silence(made.state, SITE, outbox)):
        pass
    return load_config(made.config)


def add(device, *events):
    with closing(Journal(journal_path(tmp(device)))) as journal:
        for event in events:
            journal.append(event)
        return journal.events[0].epoch


def tmp(device):
    return Path(device.state)


def readings(device, count):
    epoch = add(device)
    add(
        device,
        *(
            Reading(epoch=epoch, seq=number, picture=f"{number:064x}", label="normal", answer="normal", chance=0.65, barred=False)
            for number in range(1, count + 1)
        ),
    )


def said(device):
    return "\n".join(lines(device))


def finding(device):
    return next(found for found in check_device(device) if found.subject == "commissioning")


def status(device):
    with closing(OutboxReader(tmp(device) / "outbox.db", device.device)) as outbox:
        now = StatusWriter(device, MANIFEST, outbox)("online")
    return now.answers, now.silent_because


def test_before_enough_readings_nothing_is_asked_and_no_figure_is_told(device):
    readings(device, 1)
    assert "1 of 2 readings were compared" in said(device)
    assert "threshold " not in said(device)
    with pytest.raises(CxrError, match="1 of 2 readings were compared"):
        ask(device, release=True, by="N", threshold=None)
    assert Requests(tmp(device)).pending() == []
    assert (status(device), finding(device).ok) == (("silent", "new"), True)


def test_with_enough_the_comparison_is_told_and_a_release_asked_for(device):
    readings(device, 2)
    assert "0.6        2 of 2: 1.000" in said(device)
    assert "0.7        0 of 2: 0.000" in said(device)
    for wrong, says in (({"by": "  "}, "Say who"), ({"by": "x" * 61}, "Say who"), ({"threshold": 0.71}, "is one of 0.5, 0.6")):
        with pytest.raises(CxrError, match=says):
            ask(device, release=True, **({"by": "N", "threshold": None} | wrong))
    fixed = msgspec.structs.replace(device, model=msgspec.structs.replace(device.model, threshold=0.5))
    with pytest.raises(CxrError, match=r"device\.toml sets"):
        ask(fixed, release=True, by="N", threshold=0.6)
    assert "when it starts" in ask(device, release=True, by="N", threshold=0.6)
    assert [request for _, request in Requests(tmp(device)).pending()] == [ReleaseRequest(by="N", threshold=0.6)]


def test_what_infer_has_done_is_told(device):
    readings(device, 2)
    stop = threading.Event()

    def infer():
        with (
            only_one(tmp(device), "infer"),
            closing(Outbox(tmp(device) / "outbox.db", device.device)) as outbox,
            closing(open_silence(tmp(device), SITE, outbox)) as silence,
        ):
            ready.set()
            while not stop.wait(0.01):
                do_requests(silence, Requests(tmp(device)))

    ready = threading.Event()
    thread = threading.Thread(target=infer)
    thread.start()
    try:
        assert ready.wait(20)
        assert ask(device, release=True, by="N. N.", threshold=0.6) == "Done."
        assert "Answers are shown. Released by N. N." in said(device)
        assert "Threshold: 0.6, of the release." in said(device)
        assert (status(device), finding(device).ok) == (("shown", None), True)
        with pytest.raises(CxrError, match="released already"):
            ask(device, release=True, by="N", threshold=None)
        assert ask(device, release=False, by="", threshold=None) == "Done."
        assert status(device) == ("silent", "by_hand")
    finally:
        stop.set()
        thread.join()


def test_drift_is_told_everywhere(device):
    epoch = add(device)
    add(device, Released(by="N"), Silenced(why="drift", bundle=SITE.bundle, epoch=epoch, after=0))
    assert "no longer like those that were compared" in said(device)
    assert status(device) == ("silent", "drift")
    assert not finding(device).ok
    assert not finding(device).fatal


def test_a_demonstration_has_nothing_to_release(device):
    shown = msgspec.structs.replace(device, commissioning=Commissioning(readings=0))
    assert "readings is 0" in said(shown)
    assert (status(shown), finding(shown).ok) == (("shown", None), True)
    for release in (True, False):
        with pytest.raises(CxrError, match="always shown"):
            ask(shown, release=release, by="N", threshold=None)
    assert Requests(tmp(shown)).pending() == []
