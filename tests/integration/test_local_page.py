"""The clinic's own page in a real Chromium, with a running device: drop a film, read the answer, take it back."""

from __future__ import annotations

import re
import stat
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from edge.page.words import LANGUAGES, words
from export.phantom import phantom
from tests.support.browser import watch
from tests.support.clinic import make_device
from tests.support.clinic_page import ENGLISH, Clinic, entered, running_clinic
from tests.support.processes import free_port, wait_for
from tests.unit.edge.test_decode import dicom

expect.set_options(timeout=20_000)  # a busy machine draws a film in seconds
PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    with running_clinic(make_device(tmp_path_factory.mktemp("clinic"), f"mqtt://127.0.0.1:{free_port()}")) as clinic:
        yield clinic


def send(page: Page, clinic: Clinic, path: Path) -> None:
    page.goto(clinic.home)
    page.locator("#file").set_input_files(path)
    page.wait_for_url(re.compile(r"/studies/\d+$"), timeout=30_000)


def test_a_film_is_dropped_and_its_answer_read(browser: Browser, clinic: Clinic, tmp_path: Path) -> None:
    page = entered(browser, clinic)
    who = {"PatientName": "Canary^Anna", "PatientID": "C-17", "PatientAge": "045Y"}
    send(page, clinic, dicom(tmp_path / "film.dcm", phantom(7, width=900, height=1100), **who))
    expect(page.get_by_role("heading", name="Canary, Anna")).to_be_visible()
    expect(page.get_by_text(ENGLISH("aid"))).to_be_visible()
    expect(page.locator(".headline")).not_to_be_empty()
    # Drawn films are new to the network: what it computed all the same is there for who asks, and not before.
    expect(page.locator(".headline")).to_have_text(ENGLISH("study.not_sure"))
    for name in ("normal", "pneumonia", "covid-19"):
        expect(page.get_by_role("rowheader", name=name)).to_be_hidden()
    page.get_by_text(ENGLISH("study.computed")).click()
    for name in ("normal", "pneumonia", "covid-19"):
        expect(page.get_by_role("rowheader", name=name)).to_be_visible()
    film = page.locator("#film")
    wait_for(lambda: film.evaluate("image => image.complete && image.naturalWidth"), "the film")
    assert "heat" not in film.evaluate("image => image.src")
    if page.get_by_role("button", name=ENGLISH("study.with_heat"), exact=True).count():
        page.get_by_role("button", name=ENGLISH("study.with_heat"), exact=True).click()
        assert film.evaluate("image => image.src").endswith("heat=1")
    page.goto(clinic.home)
    expect(page.locator(".studies li").first).to_contain_text("Canary, Anna")


def test_dropping_works_as_choosing_does(browser: Browser, clinic: Clinic, tmp_path: Path) -> None:
    page = entered(browser, clinic)
    transfer = page.evaluate_handle(
        """bytes => { const transfer = new DataTransfer();
        transfer.items.add(new File([new Uint8Array(bytes)], "dropped.dcm")); return transfer; }""",
        list(dicom(tmp_path / "dropped.dcm", phantom(8), SOPInstanceUID="1.2.3.8").read_bytes()),
    )
    page.dispatch_event("#send", "drop", {"dataTransfer": transfer})
    page.wait_for_url(re.compile(r"/studies/\d+$"), timeout=30_000)


def test_several_films_are_sent_one_after_the_other_each_with_its_own_line(browser: Browser, clinic: Clinic) -> None:
    page = entered(browser, clinic)
    drop = """([name, text]) => { const transfer = new DataTransfer();
        for (const end of text) transfer.items.add(new File([end], name + end + ".txt"));
        document.getElementById("send").dispatchEvent(new DragEvent("drop", { dataTransfer: transfer })); }"""
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/uploads?name=first1.txt", hold)
    page.evaluate(drop, ["first", "12"])
    wait_for(lambda: page.evaluate("1") and held, "the first is on its way")
    page.evaluate(drop, ["second", "3"])
    lines = page.locator("#sending li")
    expect(lines).to_have_text([f"first1.txt {ENGLISH('send.sending')}", "first2.txt ", "second3.txt "])
    held[0].continue_()
    answers = lines.get_by_role("link", name=ENGLISH("list.answer"))
    expect(answers).to_have_count(3)
    assert page.url == clinic.home + "/"
    answers.nth(1).click()
    expect(page.get_by_text("first2.txt")).to_be_visible()


def test_the_language_changes_by_its_button_with_and_without_script(browser: Browser, clinic: Clinic) -> None:
    page = watch(browser, clinic.home, locale="en-US").page
    page.goto(clinic.home + "/login")
    page.get_by_label(ENGLISH("language")).focus()
    page.keyboard.press("ArrowDown")
    page.wait_for_timeout(300)
    expect(page.locator("html")).to_have_attribute("lang", "en")
    expect(page.get_by_label(ENGLISH("language"))).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("html")).to_have_attribute("lang", "fr")
    page = watch(browser, clinic.home, locale="en-US", java_script_enabled=False).page
    page.goto(clinic.home + "/login")
    choose_language(page, "sw")
    expect(page.get_by_text(words("sw")("login.ask"))).to_be_visible()


def choose_language(page: Page, language: str) -> None:
    page.get_by_label(ENGLISH("language")).select_option(language)
    page.get_by_role("button", name=ENGLISH("language.use")).click()


def test_what_is_no_film_says_what_to_do(browser: Browser, clinic: Clinic, tmp_path: Path) -> None:
    page = entered(browser, clinic)
    (tmp_path / "letter.txt").write_text("no film")
    send(page, clinic, tmp_path / "letter.txt")
    expect(page.get_by_text(ENGLISH.reason("not_an_image"))).to_be_visible()
    (tmp_path / "empty.png").write_bytes(b"")
    page.goto(clinic.home)
    page.locator("#file").set_input_files(tmp_path / "empty.png")
    expect(page.get_by_text(ENGLISH("send.empty"))).to_be_visible()


def test_a_wrong_patient_is_taken_back(browser: Browser, clinic: Clinic, tmp_path: Path) -> None:
    page = entered(browser, clinic)
    send(page, clinic, dicom(tmp_path / "wrong.dcm", phantom(9), SOPInstanceUID="1.2.3.9"))
    address = page.url
    page.get_by_text(ENGLISH("study.wrong_patient"), exact=True).click()
    page.get_by_role("button", name=ENGLISH("study.wrong_patient.do")).click()
    expect(page.get_by_text(ENGLISH("study.voided"))).to_be_visible()  # at once, whenever `infer` comes to it
    wait_for(lambda: not list((clinic.device.state / "requests").iterdir()), "the void")
    page.goto(address)
    expect(page.get_by_text(ENGLISH("study.voided"))).to_be_visible()
    expect(page.locator(".headline")).to_have_text(ENGLISH("study.void"))
    assert page.locator(".headline").evaluate("line => getComputedStyle(line).textDecorationLine") == "none"
    assert page.get_by_role("button", name=ENGLISH("study.wrong_patient.do")).count() == 0
    assert page.locator(".bars").count() == 0, "no probabilities of an answer that was taken back"


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_fits_a_telephone(browser: Browser, clinic: Clinic, language: str) -> None:
    page = entered(browser, clinic, viewport=PHONE)
    choose_language(page, language)
    expect(page.locator("html")).to_have_attribute("lang", language)
    say = words(language)
    for path, text in (("/", say("send.drop")), ("/device", say("health.title")), ("/studies/1", say("study.back"))):
        page.goto(clinic.home + path)
        expect(page.get_by_text(text)).to_be_visible()
        expect(page.get_by_text(say("aid"))).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], (language, path)
    page.goto(clinic.home)
    page.locator(".what").first.evaluate("(what, text) => { what.textContent = text; }", say("study.not_sure"))
    box = page.locator(".who").first.bounding_box()
    assert box is not None
    assert box["width"] >= 150, "room for a name beside a long answer"
    page.goto(clinic.home + "/studies/1/slip")
    expect(page.get_by_role("button", name=say("study.print"))).to_be_visible()


def test_nothing_is_shown_without_the_pin(clinic: Clinic, browser: Browser) -> None:
    page = watch(browser, clinic.home).page
    for path in ("/", "/studies/1", "/studies/1/slip", "/commissioning", "/device"):
        page.goto(clinic.home + path)
        assert page.url.endswith("/login")
        assert "Canary" not in page.content()
    for path, method in (("/studies/1/film.png", "GET"), ("/uploads/" + "0" * 32, "GET"), ("/uploads?name=a", "POST")):
        request = urllib.request.Request(clinic.home + path, method=method, data=b"x" if method == "POST" else None)
        request.add_header("Origin", clinic.home)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.build_opener(NoRedirect).open(request)
        refused.value.close()
        assert refused.value.code in (303, 401)


def test_another_site_cannot_post(clinic: Clinic) -> None:
    for origin in (None, "http://evil.example", clinic.home + ".evil.example"):
        request = urllib.request.Request(clinic.home + "/login", method="POST", data=f"pin={clinic.pin}".encode())
        if origin:
            request.add_header("Origin", origin)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request)
        refused.value.close()
        assert refused.value.code == 403


def test_pages_need_nothing_from_outside_and_make_no_trouble(browser: Browser, clinic: Clinic) -> None:
    watched = watch(browser, clinic.home)
    watched.page.goto(clinic.home + "/login")
    watched.page.get_by_label(re.compile("PIN")).fill(clinic.pin)
    watched.page.keyboard.press("Enter")
    watched.page.wait_for_url(clinic.home + "/")
    watched.page.wait_for_load_state("networkidle")
    for path in ("/studies/1", "/studies/1/slip", "/device", "/"):
        watched.page.goto(clinic.home + path)
        watched.page.wait_for_load_state("networkidle")
    assert watched.troubles == []


def test_names_are_in_no_log_and_no_outcome(clinic: Clinic) -> None:
    assert "Canary" not in clinic.device.log.read_text()
    for path in clinic.device.state.glob("outbox.db*"):
        assert b"Canary" not in path.read_bytes()
    for folder in ("local", "requests", "uploads"):
        assert stat.S_IMODE((clinic.device.state / folder).stat().st_mode) == 0o700


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None
