"""A real Chromium, driven by playwright, that notes whatever goes wrong in a page."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from tests.support.processes import find_program


@dataclass
class Watched:
    """A page, and the console messages, failed requests and foreign addresses that were seen."""

    page: Page
    troubles: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Start the system's Chromium."""
    program = find_program("chromium", "chromium")
    with sync_playwright() as playwright:
        # Tests may run as root, where Chromium's own sandbox does not start.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            yield browser
        finally:
            browser.close()


def watch(browser: Browser, home: str, **options: Any) -> Watched:
    """Open an empty page that notes troubles; `home` is the only address that it may ask."""
    page = browser.new_page(**options)
    watched = Watched(page)
    page.on("console", lambda message: watched.troubles.append(f"console {message.type}: {message.text}"))
    page.on("pageerror", lambda error: watched.troubles.append(f"error: {error}"))
    page.on("requestfailed", lambda request: watched.troubles.append(f"failed: {request.url}"))
    page.on("request", lambda request: None if request.url.startswith(home) else watched.troubles.append(f"foreign: {request.url}"))

    def dismiss(dialog: Any) -> None:
        watched.dialogs.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", dismiss)
    return watched
