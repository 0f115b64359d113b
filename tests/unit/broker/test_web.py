"""The page without a browser: what it says, how it is protected, and what it does when something is wrong."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from broker.aggregate import Aggregator
from broker.database import parse_url
from broker.reader import Reader, StoredDevice, StoredOutcome
from broker.sql_store import SqlStore
from broker.web.app import create_app
from broker.web.view import QUARANTINE_REASONS, _percent, device_view, outcome_view
from edge.contract import codec
from edge.contract.messages import HeatMap
from edge.contract.topics import Channel
from tests.support import messages
from tests.support.links import FakeLink
from tests.support.messages import EPOCH, on_wire

AID = "A research aid; never the only basis of a decision."


class Page:
    """Asks the application itself, without a network."""

    def __init__(self, app: Starlette) -> None:
        self._transport = httpx.ASGITransport(app)

    def get(self, address: str) -> httpx.Response:
        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(transport=self._transport, base_url="http://centre") as client:
                return await client.get(address)

        return asyncio.run(ask())


class Centre:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "centre.db"
        self.store = SqlStore(parse_url(str(self.path)))
        self.link = FakeLink()
        self.page = Page(create_app(Reader(parse_url(str(self.path)))))

    def close(self) -> None:
        self.store.close()

    def take(self, *sent: tuple[str, bytes]) -> None:
        for topic, payload in sent:
            self.link.put(topic, payload)
        Aggregator(self.store, self.link).handle(self.link.receive(500, 0, 0), threading.Event())


@pytest.fixture
def centre(tmp_path: Path) -> Iterator[Centre]:
    with closing(Centre(tmp_path)) as made:
        yield made


def test_empty(centre: Centre) -> None:
    page = centre.page.get("/")
    assert page.status_code == 200
    assert "No results yet" in page.text
    assert AID in page.text


def test_a_finding_looks_other_than_a_normal_picture_and_has_its_usual_name(centre: Centre) -> None:
    chances = {"normal": 0.9, "pneumonia": 0.06, "covid19": 0.04}
    centre.take(on_wire(messages.result(seq=1, label="normal", probabilities=chances)))
    normal = centre.page.get("/").text
    assert '<tr class="answer">' in normal
    assert "Covid19" not in normal
    assert normal.count("COVID-19") == 1
    centre.take(on_wire(messages.result(seq=2, label="covid19", probabilities=chances)))
    assert '<tr class="finding">' in centre.page.get("/").text


def test_an_answer_that_the_clinic_was_not_shown_says_so() -> None:
    for abstained in (True, False):
        for shown in (True, False):
            outcome = messages.result("dev-a", 1, shown=shown, abstained=abstained)
            notes = outcome_view(StoredOutcome(1, "dev-a", EPOCH, 1, "result", 1, b"{}", outcome, None)).notes
            assert any("was not shown" in note for note in notes) != shown


def test_every_kind_of_outcome_in_words(centre: Centre) -> None:
    centre.take(
        on_wire(messages.result(seq=1)),
        on_wire(messages.result(seq=2, abstained=True, label="pneumonia", threshold=0.9)),
        on_wire(messages.refusal(seq=3, reasons=("not_a_radiograph", "a_code_from_tomorrow"))),
        on_wire(messages.failure(seq=4)),
        on_wire(messages.result(seq=5)),
        on_wire(messages.void("dev-a", 6, 5)),
        on_wire(messages.status(waiting=3, clock_synchronised=False), Channel.STATUS),
        ("cxr/v1/dev-a/result", b"?"),
    )
    page = centre.page.get("/").text
    for words in (
        "COVID-19",
        "Not sure: have a radiologist look",
        "Likeliest: Pneumonia, 20.0%, below the site&#39;s threshold of 90.0%.",
        "Send the chest film.",
        "a_code_from_tomorrow",
        "The picture is damaged.",
        "Taken back",
        "Takes back no. 5",
        "clock not synchronised",
        "chest-3 1.0",
        QUARANTINE_REASONS["not_json"],
        "lower left 55%",
        AID,
    ):
        assert words in page, words


def test_filters_and_pages(centre: Centre) -> None:
    centre.take(*(on_wire(messages.result("dev-a", seq)) for seq in range(1, 121)), on_wire(messages.refusal("dev-b", 1)))

    def seqs(query: str) -> list[int]:
        return [int(seq) for seq in re.findall(rf"/outcomes/dev-.?/{EPOCH}/(\d+)", centre.page.get(f"/?{query}").text)]

    assert seqs("device=dev-a") == list(range(120, 70, -1))
    older = re.search(r'href="(/\?before=\d+&amp;device=dev-a)"', centre.page.get("/?device=dev-a").text)
    assert older is not None
    assert seqs(older[1].replace("&amp;", "&").removeprefix("/?")) == list(range(70, 20, -1))
    assert seqs("kind=refusal") == [1]
    assert seqs("kind=failure") == []
    assert "Nothing fits" in centre.page.get("/?kind=failure").text
    for nonsense in ("kind=nonsense", "before=x", "before=-1", "before=" + "9" * 30, "before=٣"):
        assert len(seqs(nonsense)) == 50


def test_live_answers_204_until_something_changes(centre: Centre) -> None:
    page = centre.page.get("/?device=dev-a").text
    asked = re.search(r'hx-get="([^"]+)"', page)
    assert asked is not None
    address = asked[1].replace("&amp;", "&")
    assert centre.page.get(address).status_code == 204
    centre.take(on_wire(messages.result(seq=1)))
    live = centre.page.get(address)
    assert live.status_code == 200
    assert live.text.lstrip().startswith('<div id="live"')
    assert "Newest: dev-a number 1, COVID-19." in live.text
    assert "device=dev-a" in live.text


def test_one_outcome(centre: Centre) -> None:
    centre.take(on_wire(messages.result(seq=1)))
    page = centre.page.get(f"/outcomes/dev-a/{EPOCH}/1")
    assert page.status_code == 200
    for words in ("decode 20, classify 3.5", "clock synchronised", "District clinic 7", AID):
        assert words in page.text
    for missing in (f"dev-a/{EPOCH}/2", f"dev-b/{EPOCH}/1", f"dev-a/{EPOCH}/{10**30}", f"dev-a/{EPOCH}/x"):
        assert centre.page.get(f"/outcomes/{missing}").status_code == 404


def test_the_heat_of_one_outcome_is_drawn_cell_by_cell(centre: Centre) -> None:
    centre.take(
        on_wire(messages.result(seq=1, heat_map=HeatMap(2, 3, bytes((0, 51, 0, 0, 0, 255))))), on_wire(messages.result(seq=2))
    )
    drawn = centre.page.get(f"/outcomes/dev-a/{EPOCH}/1").text
    assert re.findall(r'<rect x="(\d)" y="(\d)" width="1" height="1" fill-opacity="([\d.]+)"/>', drawn) == [
        ("1", "0", "0.2"),
        ("2", "1", "1.0"),
    ]
    assert not re.search(r"<style|\sstyle=|<script(?![^>]*\bsrc=)", drawn)
    assert "heat map" not in drawn.partition("<dl")[2].partition("</dl>")[0], "it is drawn, not listed"
    without = centre.page.get(f"/outcomes/dev-a/{EPOCH}/2").text
    assert 'aria-label="Heat by quarter of the image' in without


def test_every_answer_is_protected(centre: Centre) -> None:
    for address in ("/", "/live", "/healthz", "/nothing", "/static/style.css", "/static/htmx.min.js"):
        policy = centre.page.get(address).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
    page = centre.page.get("/").text
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|hx-on|javascript:", page)
    assert not re.search(r"""(?:src|href|action)=["'](?:https?:)?//""", page)


def test_a_device_that_is_full_or_rebuilt_says_so() -> None:
    def alarms(**changes: object) -> list[str]:
        return device_view(StoredDevice("dev-a", 1, 1, messages.status(**changes), 0)).alarms

    assert alarms() == alarms(room="ok", damaged_outboxes=0) == []
    assert alarms(room="alarm") == ["storage nearly full"]
    assert alarms(answers="shown") == []
    assert alarms(answers="silent", silent_because="drift") == ["the X-rays have changed: answers are no longer shown"]
    assert alarms(answers="silent", silent_because="of_a_newer_device") == ["answers are not shown at the clinic"]
    assert alarms(temperature_c=79.9, memory_available_bytes=10, memory_total_bytes=99) == []
    assert alarms(temperature_c=85.4, throttled=["under_voltage"]) == ["its power supply is too weak", "hot: 85 °C"]
    assert alarms(temperature_c=85.4, hot_c=95.0) == [], "a board that bears more"
    assert alarms(temperature_c=95.0, hot_c=95.0) == ["hot: 95 °C"]
    assert alarms(throttled=["too_hot"]) == ["too hot"]
    assert alarms(memory_available_bytes=9, memory_total_bytes=99) == ["little memory left"]
    assert alarms(room="full", damaged_outboxes=2) == ["storage full: it takes no more X-rays", "an outbox was damaged and rebuilt"]


def test_what_devices_send_stays_text(centre: Centre) -> None:
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    values = json.loads(codec.encode(messages.result(seq=1))) | {"software": evil}
    centre.take(
        ("cxr/v1/dev-a/result", json.dumps(values).encode()),
        on_wire(messages.status(model_name=evil), Channel.STATUS),
        ("cxr/v1/dev-a/result", json.dumps(values | {"device": evil}).encode()),
    )
    for address in ("/", f"/outcomes/dev-a/{EPOCH}/1", f"/?device={evil}"):
        page = centre.page.get(address).text
        assert "<script>alert" not in page
        assert "<img src=x" not in page
    assert "&lt;script&gt;alert" in centre.page.get("/").text


def test_without_a_database_it_says_so_and_recovers(tmp_path: Path) -> None:
    path = tmp_path / "later.db"
    page = Page(create_app(Reader(parse_url(str(path)))))
    for address in ("/?device=dev-a", "/live?revision=0&device=dev-a"):
        answer = page.get(address)
        assert answer.status_code == 503
        assert "cxr-broker aggregate" in answer.text
        assert 'hx-get="/live?device=dev-a"' in answer.text  # and no revision: the answer would be "nothing new"
    assert page.get("/healthz").json()["status"] == "error"
    with closing(SqlStore(parse_url(str(path)))):
        assert page.get("/live?revision=4").status_code == 200
        assert page.get("/healthz").json() == {"status": "ok", "revision": 0}


@pytest.mark.parametrize(
    ("value", "words"), [(0.0, "0%"), (0.0001, "<1%"), (0.01, "1%"), (0.5, "50%"), (0.99, "99%"), (0.9999, ">99%"), (1.0, "100%")]
)
def test_no_certainty_by_rounding(value: float, words: str) -> None:
    assert _percent(value) == words


def test_a_test_film_says_that_it_is_one() -> None:
    film = messages.result(test=True)
    view = outcome_view(StoredOutcome(1, "dev-a", EPOCH, 1, "result", 1, codec.encode(film), film, None))
    assert view.headline == "Test film: COVID-19"
    assert "counted nowhere" in view.notes[0]


def test_an_outcome_that_this_version_cannot_read_is_still_listed() -> None:
    view = outcome_view(StoredOutcome(1, "dev-a", EPOCH, 1, "result", 1, b"{}", None, None))
    assert "not readable" in view.headline
    assert view.payload == "{}"


def test_every_reason_for_quarantine_has_a_sentence() -> None:
    assert {"not_json", "unknown_schema", "invalid", "too_large", "bad_topic", "identity_mismatch", "conflict"} == set(
        QUARANTINE_REASONS
    )
