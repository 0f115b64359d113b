"""What the page shows of the outcomes of a device: the list, one study, the slip, the device's health."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import time
from urllib.parse import quote

import msgspec
import pytest

from edge.capacity import Capacity, Room
from edge.clock import Reading
from edge.contract.codec import encode
from edge.infer.local import Heat, LocalFacts
from edge.network.manifest import bundle_folder, read_manifest
from edge.outbox.reading import Reading as OutboxReading
from edge.outbox.writer import Entry, Outbox
from edge.page import studies
from edge.page.health import Health
from edge.page.upload import Uploads
from edge.page.words import words
from edge.unattended.lifecycle import only_one
from edge.unattended.tally import note_start
from tests.golden.examples import EXAMPLES
from tests.support.page import MIB, served_page

ENGLISH = words("en")
SHIPPED = read_manifest(bundle_folder(""))
RESULT = EXAMPLES["result"]
JANE = LocalFacts(patient_name="Doe^Jane", patient_id="C-17", heat=Heat(1, 1, b"\xff"))


@pytest.fixture
def page(tmp_path):
    with served_page(tmp_path / "state") as served:
        served.enter()
        yield served


def intake(number):
    return f"{number:032x}"


def test_an_answer_that_was_asked_back_is_shown_nowhere_while_infer_does_not_run(page):
    seq = page.record(msgspec.structs.replace(RESULT, quality=["unfamiliar"]), intake(1), JANE)
    (page.state / "done" / f"{intake(1)}.dcm").touch()
    shown = {path: page.get(path).text for path in ("/", f"/studies/{seq}", f"/studies/{seq}/slip")}
    assert all("pneumonia" in text for text in shown.values())
    assert all("heat=1" in shown[path] for path in list(shown)[1:])
    assert page.ask("POST", f"/studies/{seq}/wrong-patient").location == f"/studies/{seq}"
    shown = {path: page.get(path).text for path in shown}
    for text in shown.values():
        assert ENGLISH("study.void") in text
        assert "Doe, Jane" in text
        assert "pneumonia" not in text
        assert "heat" not in text
        assert ENGLISH.reason("unfamiliar") not in text
    assert "wrong-patient" not in shown[f"/studies/{seq}"], "once is enough"
    assert page.ask("POST", f"/studies/{seq}/wrong-patient").status == 303
    assert len(list((page.state / "requests").glob("*.json"))) == 1


PARTS = ("watch", "infer", "relay", "dicom", "pacs")


def condition(state, words=ENGLISH, manifest=SHIPPED, capacity=None, parts=PARTS):
    reading = OutboxReading(state / "outbox.db", "clinic-1")
    return Health(state, parts, reading, capacity or Capacity(state, 256 * MIB), manifest).read(words)


@pytest.fixture
def whole(tmp_path):
    """The state folder of a device of which every part runs."""
    with contextlib.ExitStack() as running:
        for name in PARTS:
            running.enter_context(only_one(tmp_path, name))
        Outbox(tmp_path / "outbox.db", "clinic-1").close()
        yield tmp_path


def test_a_device_of_which_every_part_runs_is_well(whole):
    assert condition(whole).troubles == []


@pytest.mark.parametrize("name", PARTS)
def test_a_part_that_does_not_run_is_a_trouble(whole, name):
    (whole / f"{name}.lock").unlink()
    assert condition(whole).troubles == [ENGLISH(f"health.no_{name}")]
    assert condition(whole, parts=[part for part in PARTS if part != name]).troubles == [], "it is not meant to run"


def test_a_part_that_falls_over_at_each_start_is_a_trouble_also_while_it_starts(whole):
    note_start(whole, "watch")
    assert condition(whole).troubles == [ENGLISH("health.no_watch")]
    os.utime(whole / "starts/watch", (time.time() - 10,) * 2)
    assert condition(whole).troubles == [], "it has stayed"


@pytest.mark.parametrize("number", ["9" * 4500, "9" * 30, "0", "-1", "x", "%C2%B2", "%D9%A3"])
def test_a_study_whose_number_makes_no_sense_is_none(page, number):
    page.record(RESULT, intake(1))
    for path in ("", "/slip", "/film.png"):
        assert page.get(f"/studies/{number}{path}").status == 404
    for path in ("/wrong-patient", "/reading"):
        assert page.ask("POST", f"/studies/{number}{path}").status == 404


def test_a_network_that_cannot_be_read_is_a_trouble(whole):
    assert condition(whole, manifest=None).troubles == [ENGLISH("health.no_model")]


def test_an_outbox_that_was_damaged_is_a_trouble(whole):
    (whole / "outbox-damaged-20260131.db").touch()
    assert condition(whole).troubles == [ENGLISH("health.damaged")]


def test_an_outbox_that_cannot_be_read_is_a_trouble_and_not_another_page(whole):
    (whole / "outbox.db").write_bytes(b"no database")
    assert condition(whole).troubles == [ENGLISH("health.no_outbox")]


@pytest.mark.parametrize(("results", "trouble"), [(7.9, None), (8, "health.results_many"), (10, "send.no_room")])
def test_little_room_for_results_is_a_trouble(whole, results, trouble):
    class Found(Capacity):
        def room(self):
            return Room(int(results * MIB), 10 * MIB, disk_free=MIB, least_free=1, spooled=0, spooled_files=0)

    assert condition(whole, capacity=Found(whole, 256 * MIB)).troubles == ([ENGLISH(trouble)] if trouble else [])


def test_the_page_of_a_device_that_stands_still_says_so(page):
    text = page.get("/device").text
    assert ENGLISH("health.trouble") in text
    assert ENGLISH("health.good") not in text


BOOT = "6a5c0d2e-3f51-4f0e-9d5e-0c0f3a1b2c3d"
OTHER = BOOT.replace("6", "7")
HOUR_NS = 3600 * 10**9


@pytest.fixture
def clock(monkeypatch):
    """Sets what the page knows of time: five hours after a start, on 31 January at noon; the clinic has no summer time."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()

    def at(wall="2026-01-31T12:00:00.000000Z", synchronised=True):
        monkeypatch.setattr(studies, "read_clock", lambda: Reading(BOOT, 5 * HOUR_NS, wall, synchronised))

    at()
    yield at
    monkeypatch.undo()
    time.tzset()


def dated(when):
    return msgspec.structs.replace(RESULT, clock_synchronised=True, recorded_at=f"2026-01-{when}:00.000000Z")


def undated(boot, hour):
    return msgspec.structs.replace(RESULT, clock_synchronised=False, boot_id=boot, monotonic_ns=hour * HOUR_NS)


def listed(text):
    """What the list shows, from above: days, and each study's time and number."""
    found = re.findall(r'<h2>(.*?)</h2>|class="when">(.*?) <small>Study (\d+)', text)
    return [day or f"{time} {number}".strip() for day, time, number in found]


def test_what_was_read_before_the_clock_was_set_keeps_its_time_of_day(page, clock):
    page.record(undated(BOOT, 1), intake(1))
    page.record(undated(BOOT, 4), intake(2))
    page.record(dated("31T11:30"), intake(3))
    assert listed(page.get("/").text) == ["11:30 3", "11:00 2", "08:00 1"]
    assert "2026-01-31 · 08:00" in page.get("/studies/1/slip").text
    clock(synchronised=False)
    text = page.get("/").text
    assert "Latest studies" in text
    assert listed(text) == ["2026-01-31", "11:30 3", "time not known", "2", "1"]


def test_what_is_of_an_unknown_time_is_among_todays_only_after_the_last_day_before(page, clock):
    page.record(undated(OTHER, 1), intake(1))
    page.record(dated("30T16:00"), intake(2))
    page.record(undated(OTHER, 2), intake(3))
    page.record(dated("31T09:00"), intake(4))
    text = page.get("/").text
    assert listed(text) == ["09:00 4", "time not known 3"]
    assert listed(page.get("/?before=3").text) == ["2026-01-30", "16:00 2", "time not known", "1"]
    assert 'href="/?before=3"' in text


def test_every_study_can_be_reached_and_a_look_reads_few_of_them(page, clock, monkeypatch):
    with contextlib.closing(Outbox(page.outbox_path, "clinic-1")) as outbox:
        for number in range(1, 521):
            outcome = dated("29T10:00" if number <= 150 else "30T10:00" if number <= 260 else "31T10:00")
            outbox.record(Entry(intake(number), "result", lambda seq, one=outcome: encode(one), place=f"{intake(number)}.dcm"))
        outbox.record(Entry(intake(0), "void", lambda seq: encode(msgspec.structs.replace(EXAMPLES["void"], voids=1))))
    decode, decoded = studies.recorded_outcome, []
    monkeypatch.setattr(studies, "recorded_outcome", lambda payload: decoded.append(1) or decode(payload))
    path, seen, days, looks = "/", [], [], 0
    while path:
        decoded.clear()
        text = page.get(path).text
        assert len(decoded) <= 101
        seen += [int(number) for number in re.findall(r'href="/studies/(\d+)"', text)]
        days += re.findall("<h2>(.*?)</h2>", text)
        path = next(iter(re.findall(r'href="(/\?before=\d+)"', text)), "")
        looks += 1
    assert seen == list(range(520, 0, -1))
    assert (days[0], days[-1]) == ("2026-01-31", "2026-01-29")
    assert looks == 6


@pytest.mark.parametrize("before", ["0", "-1", "x", "", "9" * 5000, "1e9", "²"])
def test_a_page_that_makes_no_sense_is_the_first(page, clock, before):
    page.record(dated("31T10:00"), intake(1))
    answer = page.get(f"/?before={quote(before)}")
    assert (answer.status, listed(answer.text)) == (200, ["10:00 1"])


@pytest.mark.parametrize(("number", "status", "says"), [(errno.ENOSPC, 507, "send.no_room"), (errno.EIO, 500, "error.broken")])
def test_a_disk_that_takes_no_film_is_not_always_full(page, monkeypatch, number, status, says):
    async def fails(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Uploads, "receive", fails)
    answer = page.ask("POST", "/uploads?name=a.png", b"film")
    assert (answer.status, json.loads(answer.body)["reason"]) == (status, ENGLISH(says))
