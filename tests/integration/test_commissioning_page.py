"""A new site from silent to released in a real Chromium, with a running device, and back to silent."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from edge.commissioning.journal import journal_path, read_events, read_standing
from edge.contract.codec import decode_outcome
from edge.page.words import LANGUAGES, words
from tests.support.clinic import make_device, small_picture
from tests.support.clinic_page import ENGLISH, Clinic, entered, running_clinic
from tests.support.processes import free_port, wait_for

expect.set_options(timeout=20_000)
PHONE = {"width": 360, "height": 740}
NEEDED = 3


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    device = make_device(tmp_path_factory.mktemp("clinic"), f"mqtt://127.0.0.1:{free_port()}", readings=NEEDED)
    with running_clinic(device) as clinic:
        for seed in range(NEEDED + 1):
            small_picture(device.inbox / f"film-{seed}.png", seed, side=300)
        wait_for(lambda: device.waiting() == NEEDED + 1, "every film has its answer", 60)
        yield clinic


def results(clinic: Clinic) -> list:
    outbox = clinic.device.outbox()
    try:
        return [decode_outcome(row["payload"]) for row in outbox.listing(100)][::-1]
    finally:
        outbox.close()


def command(clinic: Clinic, *options: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "edge.cli", "commission", "--config", str(clinic.device.config), *options]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


def read(page: Page, clinic: Clinic, number: int, word: str) -> None:
    page.goto(f"{clinic.home}/studies/{number}")
    page.get_by_role("radio", name=word, exact=True).check()
    page.get_by_role("button", name=ENGLISH("reading.do")).click()
    said = ENGLISH("reading.given", label=word)

    def recorded() -> bool:
        page.goto(f"{clinic.home}/studies/{number}")
        return page.get_by_text(said).count() == 1

    wait_for(recorded, "the reading")


def test_a_silent_device_shows_no_answer_and_asks_for_a_reading(browser: Browser, clinic: Clinic) -> None:
    page = entered(browser, clinic)
    expect(page.get_by_text(ENGLISH("check.silent.new"))).to_be_visible()
    for number in range(1, NEEDED + 2):
        page.goto(f"{clinic.home}/studies/{number}")
        expect(page.locator(".headline")).to_have_text(ENGLISH("study.silent"))
        expect(page.get_by_text(ENGLISH("study.silent.why"))).to_be_visible()
        assert page.locator(".bars, .computed, [data-film]").count() == 0
        page.goto(f"{clinic.home}/studies/{number}/slip")
        expect(page.locator(".headline")).to_have_text(ENGLISH("study.silent"))
    assert not any(result.shown for result in results(clinic))
    assert (
        "recorded, not shown"
        in subprocess.run(
            [sys.executable, "-m", "edge.cli", "outbox", "--config", str(clinic.device.config)],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_fits_a_telephone(browser: Browser, clinic: Clinic, language: str) -> None:
    page = entered(browser, clinic, viewport=PHONE)
    page.get_by_label(ENGLISH("language")).select_option(language)
    page.get_by_role("button", name=ENGLISH("language.use")).click()
    expect(page.locator("html")).to_have_attribute("lang", language)
    say = words(language)
    for path, text in (("/commissioning", say("check.about")), ("/studies/1", say("reading.ask")), ("/", say("check.silent.new"))):
        page.goto(clinic.home + path)
        expect(page.get_by_text(text)).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], (language, path)


def test_from_silent_to_released_and_back(browser: Browser, clinic: Clinic, tmp_path: Path) -> None:
    page = entered(browser, clinic)
    for number, word in ((1, "normal"), (2, "pneumonia"), (3, ENGLISH("reading.undecided"))):
        read(page, clinic, number, word)
    page.goto(clinic.home + "/commissioning")
    expect(page.get_by_text(ENGLISH("check.progress", count=2, needed=NEEDED))).to_be_visible()
    expect(page.get_by_text(ENGLISH("check.undecided", count=1))).to_be_visible()
    assert page.locator("table").count() == 0, "nobody reads with the comparison in mind"
    assert page.get_by_role("button", name=ENGLISH("check.release")).count() == 0
    refused = command(clinic, "--release", "--by", "N. N.")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert f"2 of {NEEDED} readings were compared" in refused.stderr

    read(page, clinic, NEEDED + 1, ENGLISH("reading.else"))
    page.goto(clinic.home + "/commissioning")
    expect(page.get_by_text(ENGLISH("check.progress", count=3, needed=NEEDED))).to_be_visible()
    expect(page.locator("table")).to_have_count(2)
    page.get_by_label(ENGLISH("check.choose")).select_option("0.7")
    page.get_by_label(ENGLISH("check.by")).fill("N. Nurse")
    page.get_by_role("button", name=ENGLISH("check.release")).click()
    wait_for(lambda: not read_standing(clinic.device.state).silent, "the release")
    page.goto(clinic.home + "/commissioning")
    expect(page.get_by_text(ENGLISH("check.shown", by="N. Nurse"))).to_be_visible()
    expect(page.get_by_text(ENGLISH("check.now", threshold="70%"))).to_be_visible()

    small_picture(clinic.device.inbox / "later.png", 50, side=300)
    wait_for(lambda: len(results(clinic)) == NEEDED + 2, "an answer after the release")
    assert (results(clinic)[-1].shown, results(clinic)[-1].threshold) == (True, 0.7)
    page.goto(f"{clinic.home}/studies/{NEEDED + 2}")
    expect(page.locator(".headline")).not_to_have_text(ENGLISH("study.silent"))
    assert page.get_by_text(ENGLISH("reading.ask")).count() == 0
    page.goto(f"{clinic.home}/studies/1")
    expect(page.locator(".headline")).to_have_text(ENGLISH("study.silent")), "what was not shown is not shown later"

    page.goto(clinic.home + "/commissioning")
    page.get_by_text(ENGLISH("check.silence"), exact=True).first.click()
    page.get_by_role("button", name=ENGLISH("check.silence")).click()
    wait_for(lambda: read_standing(clinic.device.state).silent, "silence again")
    page.goto(clinic.home + "/commissioning")
    expect(page.get_by_text(ENGLISH("check.silent.by_hand"))).to_be_visible()
    expect(page.get_by_text(ENGLISH("check.progress", count=0, needed=NEEDED))).to_be_visible()
    page.goto(f"{clinic.home}/studies/3")
    assert page.get_by_text(ENGLISH("reading.ask")).count() == 0, "a film of before counts for nothing"


def test_a_technician_sees_it_and_no_log_names_who_released(clinic: Clinic) -> None:
    said = command(clinic).stdout
    assert "Silent: answers are recorded and not shown (someone here wanted it so)" in said
    assert f"0 of {NEEDED} readings were compared" in said
    assert "Done." in command(clinic, "--silent").stdout
    assert "Nurse" not in clinic.device.log.read_text()
    assert [type(event).__name__ for event in read_events(journal_path(clinic.device.state))] == [
        "Silenced", *["Reading"] * 4, "Released", "Silenced",
    ]  # fmt: skip
    assert not re.search(r"Nurse", "".join(str(result) for result in results(clinic)))
