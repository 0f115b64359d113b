"""The local page's parts: who gets in, in which words, what it keeps and what it draws."""

from __future__ import annotations

import asyncio
import re
import signal
import stat
from functools import partial
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import edge.page
from edge.commissioning.standing import Why
from edge.config import Decode
from edge.contract.reasons import REASONS
from edge.errors import ConfigError, CxrError
from edge.infer.heat_picture import with_heat
from edge.infer.local import NOTHING, Heat, LocalFacts, LocalStore
from edge.intake.spool import Spool
from edge.page.film import Films
from edge.page.session import LASTS_S, Sessions, load_pin, make_pin
from edge.page.studies import Sent, _name, _place
from edge.page.upload import Empty, TooLarge, Uploads, _short
from edge.page.words import LANGUAGES, choose, words
from export.phantom import phantom
from tests.golden.examples import EXAMPLES

ENGLISH = words("en")


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_session_ends_and_a_wrong_pin_begins_none():
    clock = Clock()
    sessions = Sessions(lambda: "123456", clock)
    assert sessions.begin("123457", "a") is None
    token = sessions.begin(" 123456 ", "a")
    assert sessions.holds(token)
    assert not sessions.holds("123456")
    assert not sessions.holds(None)
    clock.now = LASTS_S
    assert not sessions.holds(token)
    again = sessions.begin("123456", "a")
    sessions.end(again)
    assert not sessions.holds(again)


def test_after_five_wrong_pins_an_address_waits_longer_each_time_and_others_do_not():
    clock = Clock()
    sessions = Sessions(lambda: "123456", clock)
    for _ in range(5):
        assert sessions.wait_s("a") == 0
        sessions.begin("000000", "a")
    waits = []
    for _ in range(12):
        waits.append(sessions.wait_s("a"))
        assert sessions.begin("123456", "a") is None, "even the right one has to wait"
        clock.now += waits[-1]
        sessions.begin("000000", "a")
    assert waits == sorted(waits)
    assert waits[0] > 0
    assert waits[-1] == 300
    assert sessions.begin("123456", "b")
    clock.now += 300
    assert sessions.begin("123456", "a")


def test_a_pin_is_made_once_and_for_its_owner_alone(tmp_path):
    path = tmp_path / "page.pin"
    assert load_pin_of(path) == load_pin(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        make_pin(path)
    for wrong in ("12345", "abcdef", "", "1234567\n8"):
        path.write_text(wrong)
        with pytest.raises(ConfigError, match="holds no PIN"):
            load_pin(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_pin(tmp_path / "nowhere")


def test_another_pin_counts_at_once_and_ends_what_began_with_the_first(tmp_path):
    path = tmp_path / "page.pin"
    path.write_text("123456\n")
    sessions = Sessions(partial(load_pin, path))
    first = sessions.begin("123456", "a")
    path.write_text("")  # as an editor may leave it for a moment
    assert sessions.holds(first)
    assert sessions.begin("", "a") is None
    path.write_text("999999\n")
    assert not sessions.holds(first)
    assert sessions.begin("123456", "a") is None
    second = sessions.begin("999999", "a")
    assert sessions.holds(second)
    assert not sessions.holds(first)


def load_pin_of(path):
    pin = make_pin(path)
    assert re.fullmatch(r"\d{6}", pin)
    return pin


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_catalogue_has_every_text_with_the_same_gaps(language):
    other = words(language)
    assert other._texts.keys() == ENGLISH._texts.keys()
    gaps = re.compile(r"\{\w+\}")
    for key, text in ENGLISH._texts.items():
        assert sorted(gaps.findall(text)) == sorted(gaps.findall(other(key) if "{" not in text else other._texts[key])), key
        assert language == "en" or len(text) < 25 or other._texts[key] != text, f"{key} is not translated"
    assert {code for code in REASONS if f"reason.{code}" not in other._texts} == set()


FAMILIES = {
    "reason": set(REASONS),
    "class": {"normal", "pneumonia", "covid19", "lung_opacity"},
    "zone": {"left", "right", "both", "upper", "lower", "central", "peripheral"},
    "sent": set(get_args(Sent)),
    "check": {f"silent.{why}" for why in get_args(Why)},
}
"""Of these only the first part stands in the code."""


def test_no_catalogue_has_a_text_that_is_used_nowhere():
    page = Path(edge.page.__file__).parent
    code = "".join(path.read_text("utf-8") for path in [*page.glob("*.py"), *page.glob("templates/*.html")])
    for key in ENGLISH._texts:
        family, _, name = key.partition(".")
        assert name in FAMILIES.get(family, ()) or f'"{key.removesuffix(".one")}"' in code, key


@pytest.mark.parametrize("language", LANGUAGES)
def test_one_thing_is_not_said_as_many(language):
    say = words(language)
    for key in ("health.waiting", "health.spool", "health.aside"):
        one, many = say.count(key, 1), say.count(key, 21)
        assert one.replace("1", "") != many.replace("21", "")
    assert say.count("login.wait", 1)


def test_english_sentences_for_reasons_are_those_of_the_contract():
    assert {code: ENGLISH.reason(code) for code in REASONS} == REASONS
    assert ENGLISH.reason("of_a_newer_device") == "of_a_newer_device"
    assert ENGLISH.of_class("tuberculosis") == "tuberculosis"


@pytest.mark.parametrize(
    ("cookie", "accepted", "language"),
    [
        ("sw", "fr", "sw"),
        (None, "fr-CA,en;q=0.5", "fr"),
        (None, "de, ES;q=0.3", "es"),
        ("xx", "", "en"),
        (None, "*" * 5000, "en"),
    ],
)
def test_the_language_is_the_chosen_one_or_one_that_the_browser_asks_for(cookie, accepted, language):
    assert choose(cookie, accepted) == language


def test_names_are_written_as_people_do():
    assert _name("Doe^Jane^M^Dr") == "Doe, Jane M"
    assert _name("Yamada^Tarou=山田^太郎") == "Yamada, Tarou"
    assert _name("Jane Doe") == "Jane Doe"
    assert _name("=王^小东") == _name("^^=王^小东=") == "王, 小东"
    assert _name("Doe^John^^^Jr") == "Doe, John Jr"
    assert _name("Doe^John^^Dr^Jr^odd") == "Doe, John Jr"
    assert _name("^Jane") == "Jane"
    assert _name(None) == _name("^^") == ""


@pytest.mark.parametrize(
    ("quarters", "central", "words_of"),
    [
        ((0.4, 0.2, 0.2, 0.2), 0.5, ["both"]),
        ((0.7, 0.2, 0.1, 0.0), 0.1, ["left", "upper", "peripheral"]),
        ((0.0, 0.1, 0.1, 0.8), 0.9, ["right", "lower", "central"]),
        ((0.0, 0.5, 0.0, 0.5), None, ["right"]),
    ],
)
def test_where_the_heat_lies_is_said_in_words(quarters, central, words_of):
    names = ("image_left_upper", "image_right_upper", "image_left_lower", "image_right_lower")
    heat = dict(zip(names, quarters, strict=True))
    if central is not None:
        heat |= {"image_central": central, "image_peripheral": 1 - central}
    result = msgspec.structs.replace(EXAMPLES["result"], heat=heat)
    said = ", ".join(ENGLISH(f"zone.{name}") for name in words_of)
    assert _place(result, ENGLISH) == ENGLISH("zone.where", places=said)
    assert _place(msgspec.structs.replace(result, heat={}), ENGLISH) == ""


def test_local_facts_are_private_bounded_and_never_in_the_way(tmp_path):
    store = LocalStore(tmp_path)
    facts = LocalFacts(patient_name="A^B", heat=Heat(2, 1, b"\0\xff"))
    store.write("ab" * 16, facts)
    assert store.read("ab" * 16) == facts
    (path,) = (tmp_path / "local").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_bytes(b"damaged")
    assert store.read("ab" * 16) == store.read("cd" * 16) == NOTHING
    for number in range(5):
        store.write(f"{number:032x}", facts)
    assert store.trim(3) == 3
    assert store.read(f"{4:032x}") == facts
    with pytest.raises(CxrError):
        store.read("../../etc/passwd")


async def chunks(*parts):
    for part in parts:
        yield part


@pytest.mark.parametrize(
    "name", ["film.png", "../../x.png", "C:\\films\\x.png", "", "..", "a\0b", "é" * 400, "የ" * 90 + ".png", "x" * 179 + "😀"]
)
def test_an_upload_is_in_the_spool_under_a_name_that_leads_nowhere(tmp_path, name):
    spool = Spool(tmp_path)
    uploads = Uploads(tmp_path, spool, 100)
    intake = asyncio.run(uploads.receive(name, chunks(b"ab", b"c")))
    assert intake.path.read_bytes() == b"abc"
    assert intake.path.parent == spool.incoming
    assert [pending.id for pending in spool.pending()] == [intake.id]
    assert list((tmp_path / "uploads").iterdir()) == []


def test_an_upload_that_is_answered_at_once_was_taken_all_the_same(tmp_path, monkeypatch):
    """`infer` may move it away the moment that it is in the spool."""
    spool = Spool(tmp_path)
    admit = spool.admit

    def quick(path):
        intake = admit(path)
        intake.path.unlink()
        return intake

    monkeypatch.setattr(spool, "admit", quick)
    asyncio.run(Uploads(tmp_path, spool, 100).receive("a.png", chunks(b"abc")))


@given(st.text("aየ😀", min_size=60))
def test_a_name_is_cut_between_letters_and_keeps_its_ending(name):
    short = _short(name + ".png")
    assert len(short.encode()) <= 180
    assert short.endswith(".png")
    assert set(short) <= set(name + ".png")


def test_what_is_too_large_empty_or_broken_off_leaves_nothing(tmp_path):
    spool = Spool(tmp_path)
    uploads = Uploads(tmp_path, spool, 3)
    with pytest.raises(TooLarge):
        asyncio.run(uploads.receive("a", chunks(b"ab", b"cd")))
    with pytest.raises(Empty):
        asyncio.run(uploads.receive("a", chunks(b"")))

    async def broken():
        yield b"a"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        asyncio.run(uploads.receive("a", broken()))
    assert spool.pending() == []
    assert list((tmp_path / "uploads").iterdir()) == []


def test_what_a_process_left_behind_is_removed_at_the_next_start(tmp_path):
    left = tmp_path / "uploads" / "0011"
    left.mkdir(parents=True)
    (left / "half.png").write_bytes(b"half")
    Uploads(tmp_path, Spool(tmp_path), 3)
    assert list((tmp_path / "uploads").iterdir()) == []


def test_heat_lies_on_the_square_that_the_network_saw():
    image = Image.new("L", (300, 100), 100)
    heat = Heat(2, 2, bytes([255, 0, 0, 0]))
    drawn = np.asarray(with_heat(image, heat)).astype(int)
    coloured = np.ptp(drawn, axis=2) > 20
    assert coloured[:50, 100:150].mean() > 0.8
    assert not coloured[:, :100].any()
    assert not coloured[:, 200:].any()
    assert not coloured[80:, 180:].any()
    assert (drawn[:, :100] == 100).all(), "the film beside it stays as it is"


async def stays():
    return False


async def gone():
    return True


def test_a_film_is_drawn_in_a_process_of_its_own_and_a_bad_one_is_none(tmp_path):
    Image.fromarray(phantom(1, width=1500, height=1200)).save(tmp_path / "film.png")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    films = Films(Decode(), tmp_path / "turn")

    async def both():
        hot = Heat(1, 1, b"\xff")
        return await films.draw(tmp_path / "film.png", hot, stays), await films.draw(tmp_path / "bad.png", None, stays)

    drawn, none = asyncio.run(both())
    assert none is None
    (tmp_path / "out.png").write_bytes(drawn)
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (1024, 819)
        assert image.mode == "RGB"


def test_a_film_that_nobody_waits_for_any_more_is_not_drawn_and_the_last_ones_are_kept(tmp_path, children):
    Image.fromarray(phantom(1)).save(tmp_path / "film.png")
    films, hot = Films(Decode(), tmp_path / "turn"), Heat(1, 1, b"\xff")

    async def taps():
        asked = [films.draw(tmp_path / "film.png", heat, gone) for heat in (None, hot)]
        asked += [films.draw(tmp_path / "film.png", heat, stays) for heat in (None, hot, None, hot)]
        return await asyncio.gather(*asked)

    nobody, nobody_either, *drawn = asyncio.run(taps())
    assert nobody is nobody_either is None
    assert drawn[0] == drawn[2] != drawn[1] == drawn[3]
    assert len(children) == 2


def test_what_is_kept_of_films_has_a_limit(monkeypatch, tmp_path):
    films = Films(Decode(), tmp_path / "turn")

    async def drawn(path, heat):
        return bytes(3 * 2**20)

    monkeypatch.setattr(films, "_drawn", drawn)
    for number in range(5):
        assert asyncio.run(films.draw(tmp_path / f"{number}.png", None, stays))
    assert [path.name for path, _ in films._kept] == ["3.png", "4.png"]


@pytest.fixture
def children(monkeypatch):
    """The processes that films were drawn in."""
    begin, begun = asyncio.create_subprocess_exec, []

    async def noted(*arguments, **options):
        begun.append(await begin(*arguments, **options))
        return begun[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", noted)
    return begun


class OfPython310(Exception):
    """There asyncio.TimeoutError is no TimeoutError."""


@pytest.mark.parametrize("kind", [TimeoutError, OfPython310])
def test_a_film_that_takes_too_long_is_given_up(tmp_path, monkeypatch, children, kind):
    async def too_long(waited, timeout):
        task = asyncio.ensure_future(waited)
        await asyncio.sleep(timeout)
        task.cancel()
        raise kind

    monkeypatch.setattr(asyncio, "TimeoutError", kind)
    monkeypatch.setattr(asyncio, "wait_for", too_long)
    Image.fromarray(phantom(1)).save(tmp_path / "film.png")
    films = Films(msgspec.structs.replace(Decode(), timeout_s=0.001), tmp_path / "turn")
    assert asyncio.run(films.draw(tmp_path / "film.png", None, stays)) is None
    assert [child.returncode for child in children] == [-signal.SIGKILL]


def test_a_film_whose_page_is_told_to_stop_leaves_no_process(tmp_path, children):
    Image.fromarray(phantom(1)).save(tmp_path / "film.png")

    async def stopped():
        drawing = asyncio.ensure_future(Films(Decode(), tmp_path / "turn").draw(tmp_path / "film.png", None, stays))
        while not children:
            await asyncio.sleep(0.001)
        drawing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await drawing

    asyncio.run(stopped())
    assert [child.returncode for child in children] == [-signal.SIGKILL]
