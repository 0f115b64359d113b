"""The clinic's own page of a running device, as a person in front of a browser has it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from edge.config import load_config
from edge.page.words import words
from tests.support.browser import watch
from tests.support.clinic import Device
from tests.support.processes import listens, wait_for

ENGLISH = words("en")


@dataclass(frozen=True)
class Clinic:
    """A device that runs, its page's address and PIN."""

    device: Device
    home: str
    pin: str


@contextlib.contextmanager
def running_clinic(device: Device) -> Iterator[Clinic]:
    """Start the device with all its processes; stop it at the end."""
    page = load_config(device.config).page
    assert page is not None
    device.start()
    try:
        wait_for(lambda: listens(page.port), "the page", 60)
        yield Clinic(device, f"http://127.0.0.1:{page.port}", Path(page.pin).read_text().strip())
    finally:
        device.stop()


def entered(browser: Browser, clinic: Clinic, **options: object) -> Page:
    """Open the page, type the PIN, and wait until the list of studies is there with its script at work."""
    page = watch(browser, clinic.home, locale="en-US", **options).page
    page.goto(clinic.home)
    page.get_by_label(ENGLISH("login.ask")).fill(clinic.pin)
    page.get_by_role("button", name=ENGLISH("login.enter")).click()
    expect(page.get_by_text(ENGLISH("send.drop"))).to_be_visible()
    # The words are there before the script is: what is dropped until then is dropped beside the box.
    page.wait_for_load_state("load")
    return page
