"""Nothing on the page tells a silent answer: whatever the network said, every route gives the same bytes."""

from __future__ import annotations

import asyncio
import html
from typing import Any

import httpx
import msgspec
import pytest
from starlette.routing import Mount, Route

from edge.capacity import Capacity
from edge.commissioning.journal import Journal, journal_path
from edge.commissioning.standing import Reading, Released, Silenced
from edge.config import Commissioning, Decode
from edge.contract.codec import encode
from edge.infer.local import Heat, LocalFacts, LocalStore
from edge.intake.spool import Spool
from edge.network.manifest import SHIPPED, read_manifest
from edge.outbox.reading import Reading as OutboxReading
from edge.outbox.writer import Entry, Outbox
from edge.page.app import Parts, create_app
from edge.page.checking import Checking
from edge.page.film import Films
from edge.page.health import Health
from edge.page.session import COOKIE, Sessions
from edge.page.studies import Studies
from edge.page.upload import Uploads
from edge.page.words import LANGUAGES, words
from edge.requests import ReadingRequest, ReleaseRequest, Requests, SilenceRequest, VoidRequest
from tests.golden.examples import EPOCH, EXAMPLES

ANSWERS: list[dict[str, Any]] = [
    {"probabilities": {"normal": 0.98, "pneumonia": 0.01, "covid19": 0.01}, "label": "normal", "typicality": 0.9, "heat": {}},
    {"probabilities": {"normal": 0.1, "pneumonia": 0.2, "covid19": 0.7}, "label": "covid19", "typicality": 0.3, "threshold": 0.9},
    {"abstained": True, "quality": ["uid_reused", "unfamiliar", "undecided"], "typicality": 0.01, "timings_ms": {"total": 1.0}},
]
HEATS = [None, Heat(1, 2, b"\xff\0"), Heat(2, 1, b"\0\xff")]
INTAKE = "ab" * 16
NAME = f"{INTAKE}.png"


class Clinic:
    """A device whose two studies were answered in one of the ways above; the second film was read."""

    def __init__(self, home, answer=0, *, shown=False, readings=2, events=(), test=False, readable=True):
        self.home = home
        outbox = Outbox(home / "outbox.db", "clinic-7")
        self.epoch = outbox.epoch
        common = {"epoch": EPOCH, "shown": shown, "test": test}
        for number in (1, 2):

            def payload(seq, number=number):
                return encode(
                    msgspec.structs.replace(EXAMPLES["result"], **(common | {"epoch": self.epoch, "seq": seq} | ANSWERS[answer]))
                )

            outbox.record(Entry(f"{number:064x}", "result", payload, original_name="film.png", place=NAME))
        outbox.close()
        local = LocalStore(home)
        local.write(INTAKE, LocalFacts(patient_name="A^B", heat=HEATS[answer]))
        journal = Journal(journal_path(home))
        for event in (Silenced(why="new", bundle="b" * 64, epoch=self.epoch, after=0), self.read(2), *events):
            journal.append(event)
        journal.close()
        sessions = Sessions(lambda: "123456")
        self.cookie = sessions.begin("123456", "")
        reading, capacity, manifest = OutboxReading(home / "outbox.db", "clinic-7"), Capacity(home, 2**28), read_manifest(SHIPPED)
        spool = Spool(home)
        self.requests = Requests(home)
        self.app = create_app(
            Parts(
                facility="Clinic",
                studies=Studies(home, reading, local, self.requests),
                uploads=Uploads(home, spool, 1000),
                films=Films(Decode(), home / "turn"),
                health=Health(home, ("watch", "infer", "relay"), reading, capacity, manifest),
                checking=Checking(home, Commissioning(readings=readings), manifest if readable else None, None),
                sessions=sessions,
                requests=self.requests,
                has_room=lambda: True,
                names=frozenset({"clinic"}),
            )
        )

    def read(self, seq, label="pneumonia", answer="normal"):
        return Reading(epoch=self.epoch, seq=seq, picture=f"{seq:064x}", label=label, answer=answer, chance=0.9, barred=False)

    def ask(self, *calls):
        """calls: (method, path, form)."""

        async def all_of_them():
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://clinic", cookies={COOKIE: self.cookie}) as client:
                return [
                    await client.request(method, path, data=form, headers={"Origin": "http://clinic"})
                    for method, path, form in calls
                ]

        return asyncio.run(all_of_them())

    def asked(self):
        return [request for _, request in self.requests.pending()]


def addresses(app):
    """Every address of the page that is read and not asked of it, filled in."""
    for route in app.routes:
        if isinstance(route, Mount):
            continue
        assert isinstance(route, Route)
        if "GET" in (route.methods or ()):
            yield route.path.replace("{number}", "1").replace("{intake}", INTAKE)
            yield route.path.replace("{number}", "2").replace("{intake}", INTAKE)


def everything(clinic):
    """Return what every address gives, in every language, with the heat and without."""
    found = {}
    for language in LANGUAGES:
        paths = [path + query for path in addresses(clinic.app) for query in ("", "?heat=1&asked=1&read=1")]
        with_language = [("POST", "/language", {"language": language}), *(("GET", path, None) for path in paths)]
        for (_, path, _), answer in zip(with_language, clinic.ask(*with_language), strict=True):
            found[language, path] = (answer.status_code, answer.content)
    return found


def test_whatever_the_network_said_every_route_gives_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("edge.clock.synchronised", lambda: False)
    said = []
    for number in range(len(ANSWERS)):
        home = tmp_path / str(number)
        home.mkdir()
        said.append(everything(Clinic(home, number)))
    assert {path.split("?")[0] for _, path in said[0]} >= {
        "/",
        "/studies/1",
        "/studies/1/slip",
        "/studies/1/film.png",
        f"/uploads/{INTAKE}",
    }
    assert said[0]["en", "/studies/1"][0] == 200
    for other in said[1:]:
        assert [key for key in said[0] if _fixed(said[0][key]) != _fixed(other[key])] == []


def _fixed(answer):
    # Free disk space is told on the page of the device.
    status, content = answer
    return status, b"".join(line for line in content.split(b"\n") if b"GB" not in line and b"Go." not in line)


def test_the_same_answers_are_told_where_they_are_shown(tmp_path):
    """Else the test above could not fail."""
    said = []
    for number in range(len(ANSWERS)):
        home = tmp_path / str(number)
        home.mkdir()
        said.append(everything(Clinic(home, number, shown=True)))
    for path in ("/", "/studies/1", "/studies/1/slip"):
        assert len({one["en", path][1] for one in said}) == len(ANSWERS), path


def test_choices_stand_in_the_order_of_the_classes(tmp_path):
    clinic = Clinic(tmp_path, 1)
    (answer,) = clinic.ask(("GET", "/studies/1", None))
    places = [answer.text.index(f'value="{label}"') for label in ("normal", "pneumonia", "covid19", "*", "?")]
    assert places == sorted(places)


def test_a_reading_is_asked_of_the_device_once(tmp_path):
    clinic = Clinic(tmp_path)
    clinic.ask(("POST", "/studies/1/reading", {"label": "normal"}))
    assert clinic.asked() == [ReadingRequest(epoch=clinic.epoch, seq=1, label="normal")]
    clinic.ask(
        ("POST", "/studies/1/reading", {"label": "tuberculosis"}),
        ("POST", "/studies/1/reading", {}),
        ("POST", "/studies/2/reading", {"label": "normal"}),
    )
    assert len(clinic.asked()) == 1, "no class of the network, nothing at all, a film that was read"


def test_a_test_film_is_not_to_be_read(tmp_path):
    clinic = Clinic(tmp_path, test=True)
    clinic.ask(("POST", "/studies/1/reading", {"label": "normal"}))
    assert clinic.asked() == []


@pytest.mark.parametrize(
    ("form", "asked"),
    [
        ({"by": " N. N. ", "threshold": "0.7"}, [ReleaseRequest(by="N. N.", threshold=0.7)]),
        ({"by": "N. N."}, [ReleaseRequest(by="N. N.")]),
        ({"by": "N. N.", "threshold": "0.71"}, []),
        ({"by": "N. N.", "threshold": "x"}, []),
        ({"by": " "}, []),
        ({"by": "n" * 61}, []),
        ({}, []),
    ],
)
def test_a_release_names_who_and_one_of_the_thresholds(tmp_path, form, asked):
    clinic = Clinic(tmp_path, readings=1)
    (answer,) = clinic.ask(("POST", "/commissioning/release", form))
    assert answer.headers["location"].endswith("done" if asked else "refused")
    assert clinic.asked() == asked


def test_too_few_readings_release_nothing_and_show_no_comparison(tmp_path):
    clinic = Clinic(tmp_path, readings=2)
    page, refused = clinic.ask(("GET", "/commissioning", None), ("POST", "/commissioning/release", {"by": "N. N."}))
    assert "<table" not in page.text
    assert '<form method="post" action="/commissioning' not in page.text
    assert refused.headers["location"].endswith("refused")
    assert clinic.asked() == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_damaged_row_is_shown_as_damaged_and_the_others_as_they_are(tmp_path, language):
    clinic = Clinic(tmp_path, shown=True)
    outbox = Outbox(tmp_path / "outbox.db", "clinic-7")
    outbox._db.execute("UPDATE outcome SET payload = ? WHERE number = 2", (b"\0" * 512,))
    outbox.close()
    asked = [("GET", path, None) for path in ("/", "/studies/2", "/studies/2/slip", "/studies/2/film.png", "/studies/1")]
    _, *pages, film, other = clinic.ask(("POST", "/language", {"language": language}), *asked)
    said = words(language)("study.damaged")
    for page in pages:
        assert page.status_code == 200
        assert said in html.unescape(page.text)
        assert "A, B" in page.text, "the name is in another file"
    assert film.status_code == 404, "there is none in this test"
    assert said not in html.unescape(other.text)
    assert html.unescape(pages[0].text).count(words(language)("study.title", seq=1)) == 1, "the other is in the list"
    clinic.ask(("POST", "/studies/2/wrong-patient", {}))
    assert clinic.asked() == [VoidRequest(epoch=clinic.epoch, voids=2, reason="wrong_patient")], "the centre may have it whole"


RELEASED = Released(by="N. N.")


def silenced(why):
    return Silenced(why=why, bundle="c" * 64, epoch=EPOCH, after=0)


# name: readings wanted (one was compared), events, whether the bundle can be read, what the journal becomes;
# then the sentence, and which of the two forms there is.
STATES = {
    "new": (2, (), True, None, "silent.new", None),
    "enough were read": (1, (), True, None, "silent.new", "release"),
    "released": (1, (RELEASED,), True, None, "shown", "silence"),
    "released, then more are wanted": (2, (RELEASED,), True, None, "shown", "silence"),
    "released, and the bundle cannot be read": (1, (RELEASED,), False, None, "shown", "silence"),
    "drifted": (1, (RELEASED, silenced("drift")), True, None, "silent.drift", None),
    "another bundle": (1, (RELEASED, silenced("model")), True, None, "silent.model", None),
    "silenced here": (1, (RELEASED, silenced("by_hand")), True, None, "silent.by_hand", None),
    "damaged and put aside": (1, (RELEASED, silenced("damaged")), True, None, "silent.damaged", None),
    "released again": (1, (RELEASED, silenced("drift"), RELEASED), True, None, "shown", "silence"),
    # `infer` knows how it stands until it starts again, and may be showing answers.
    "damaged while the device runs": (1, (RELEASED,), True, b"nonsense\n", "silent.damaged", "silence"),
    "no journal": (1, (), True, b"", "silent.new", None),
    "none wanted": (0, (), True, None, "always", None),
    "none wanted, once released": (0, (RELEASED,), True, None, "always", None),
    "none wanted, damaged": (0, (RELEASED,), True, b"nonsense\n", "always", None),
    "none wanted, no journal": (0, (), True, b"", "always", None),
}


@pytest.mark.parametrize("state", STATES)
def test_however_the_device_stands_it_can_be_silenced_if_it_may_show_answers_and_released_if_it_may_be(tmp_path, state):
    readings, events, readable, journal, sentence, form = STATES[state]
    clinic = Clinic(tmp_path, readings=readings, events=events, readable=readable)
    if journal is not None:
        journal_path(tmp_path).write_bytes(journal)
    page, release, silence = clinic.ask(
        ("GET", "/commissioning", None),
        ("POST", "/commissioning/release", {"by": "N. N."}),
        ("POST", "/commissioning/silence", {}),
    )
    say = words("en")
    assert say(f"check.{sentence}", **({"by": "N. N."} if sentence == "shown" else {})) in html.unescape(page.text)
    assert ('action="/commissioning/release"' in page.text) == (form == "release")
    assert ('action="/commissioning/silence"' in page.text) == (form == "silence")
    assert release.headers["location"].endswith("done" if form == "release" else "refused")
    assert silence.headers["location"].endswith("done" if readings else "refused"), "asked twice it does no harm"
    assert clinic.asked() == [ReleaseRequest(by="N. N.")] * (form == "release") + [SilenceRequest()] * bool(readings)
    assert (say("check.about") in html.unescape(page.text)) == (readings > 0), "it says that answers are not shown at first"


def test_the_comparison_is_shown_with_enough_and_silence_can_be_asked_for(tmp_path):
    clinic = Clinic(tmp_path, readings=1, events=[Released(by="<b>N", threshold=0.7)])
    (page,) = clinic.ask(("GET", "/commissioning", None))
    assert "&lt;b&gt;N" in page.text
    assert "0 / 1 = 0% (0-88%)" in page.text, "one answer, which does not agree; Wilson for six rows together"
    clinic.ask(("POST", "/commissioning/silence", {}))
    assert clinic.asked() == [SilenceRequest()]
