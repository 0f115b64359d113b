"""The pictures of the clinic's page in docs/images, from a running device and a real Chromium: `make pictures`.

The films are drawn and the people invented. A browser of another version draws letters a little otherwise, so that no test asks
whether the pictures are current: look at them.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from pathlib import Path

import numpy as np
from playwright.sync_api import Page

from edge.commissioning.journal import Journal, journal_path
from edge.commissioning.standing import UNDECIDED, Reading, Released
from export.phantom import phantom
from tests.support.browser import chromium
from tests.support.clinic import make_device
from tests.support.clinic_page import ENGLISH, entered, running_clinic
from tests.support.processes import free_port, wait_for
from tests.unit.edge.test_decode import dicom

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
CLASSES = ("normal", "pneumonia", "covid19")
READINGS, UNDECIDED_READINGS = 100, 4


def main() -> None:
    """Write the pictures."""
    with tempfile.TemporaryDirectory() as home, chromium() as browser:
        device = make_device(Path(home), f"mqtt://127.0.0.1:{free_port()}", readings=READINGS)
        device.config.write_text(device.config.read_text("utf-8").replace("Test clinic", "Health centre 7"), "utf-8")
        size = {"width": 1000, "height": 760}
        with running_clinic(device) as clinic:
            page = entered(browser, clinic, viewport=size)
            _send(page, _film(Path(home), 7, "Drawn^Anna"))
            page.screenshot(path=IMAGES / "reading.png", full_page=True)
        _read_many(device.state)
        with running_clinic(device) as clinic:
            page = entered(browser, clinic, viewport=size)
            page.get_by_role("link", name=ENGLISH("nav.check")).click()
            page.get_by_role("table").last.wait_for()
            page.screenshot(path=IMAGES / "commissioning.png", full_page=True)
        with contextlib.closing(Journal(journal_path(device.state))) as journal:
            journal.append(Released(by="A. Drawn"))
        with running_clinic(device) as clinic:
            page = entered(browser, clinic, viewport=size)
            _send(page, _film(Path(home), 8, "Drawn^Ben"))
            page.get_by_role("button", name=ENGLISH("study.with_heat"), exact=True).click()
            _wait_for_film(page)
            page.screenshot(path=IMAGES / "clinic.png", full_page=True)


def _film(home: Path, seed: int, name: str) -> Path:
    film = phantom(seed, width=900, height=1000)
    return dicom(
        home / "film.dcm", film, SOPInstanceUID=f"1.2.3.{seed}", PatientName=name, PatientID=f"C-{10 + seed}", PatientAge="045Y"
    )


def _send(page: Page, film: Path) -> None:
    page.locator("#file").set_input_files(film)
    page.wait_for_url(re.compile(r"/studies/\d+$"))
    _wait_for_film(page)


def _wait_for_film(page: Page) -> None:
    wait_for(lambda: page.locator("#film").evaluate("image => image.complete && image.naturalWidth"), "the film")


def _read_many(state: Path) -> None:
    """Note readings that agree with the device mostly. Only while no process of the device runs."""
    rng = np.random.default_rng(7)
    with contextlib.closing(Journal(journal_path(state))) as journal:
        epoch = journal.events[0].epoch
        for number in range(1, READINGS + UNDECIDED_READINGS + 1):
            answer = CLASSES[rng.integers(3)]
            label = UNDECIDED if number > READINGS else answer if rng.random() < 0.93 else CLASSES[rng.integers(3)]
            reading = Reading(
                epoch=epoch,
                seq=number + 1000,
                picture=f"{number:064x}",
                label=label,
                answer=answer,
                chance=float(rng.uniform(0.4, 0.99)),
                barred=bool(rng.random() < 0.4),
            )
            journal.append(reading)


if __name__ == "__main__":
    main()
