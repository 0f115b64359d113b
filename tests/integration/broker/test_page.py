"""The page in a real Chromium, fed through a real Mosquitto."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from edge.contract import codec
from edge.contract.topics import Channel
from tests.support import messages
from tests.support.browser import Watched, watch
from tests.support.centre import ROOT, aggregator, dashboard
from tests.support.messages import EPOCH
from tests.support.mosquitto import Mosquitto
from tests.support.wire_device import WireDevice, wire_device

AID = "A research aid; never the only basis of a decision."
PICTURES = ROOT / "build" / "screenshots"
EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>"


@dataclass
class Scene:
    home: str
    device: WireDevice
    database: Path


@pytest.fixture
def scene(mosquitto: Mosquitto, tmp_path: Path) -> Iterator[Scene]:
    database = tmp_path / "centre.db"
    with (
        aggregator(tmp_path, mosquitto.url, str(database)),
        dashboard(tmp_path, str(database)) as home,
        wire_device("rpi-clinic-07", mosquitto.port) as device,
    ):
        yield Scene(home, device, database)


def fill(device: WireDevice) -> None:
    name = device.name
    device.send(messages.status(name, waiting=2), Channel.STATUS, retain=True)
    device.send(messages.result(name, 1))
    device.send(
        messages.result(
            name,
            2,
            label="pneumonia",
            abstained=True,
            threshold=0.6,
            probabilities={"covid": 0.31, "normal": 0.17, "pneumonia": 0.52},
        )
    )
    device.send(messages.refusal(name, 3))
    device.send(messages.failure(name, 4))
    device.send(messages.result(name, 5, label="normal", probabilities={"covid": 0.01, "normal": 0.97, "pneumonia": 0.02}))
    device.send(messages.void(name, 6, 1))
    values = json.loads(codec.encode(messages.result(name, 7))) | {"label": 3}
    device.send_bytes(f"cxr/v1/{name}/result", json.dumps(values).encode())
    device.wait_receipt(7)


def test_results_appear_by_themselves(browser: Browser, scene: Scene) -> None:
    watched = watch(browser, scene.home, viewport={"width": 1280, "height": 900})
    page = watched.page
    page.goto(scene.home)
    expect(page.get_by_text("No results yet")).to_be_visible()
    page.evaluate("window.sameDocument = true")
    fill(scene.device)
    row = page.locator("table.outcomes tbody tr").filter(has_text="Takes back no. 1")
    expect(row).to_be_visible(timeout=10_000)
    assert page.evaluate("window.sameDocument") is True  # without a reload
    expect(page.locator("table.outcomes tbody tr")).to_have_count(6)
    expect(page.locator("#news")).to_contain_text("Newest: rpi-clinic-07 number 6")
    expect(page.get_by_text(AID)).to_be_in_viewport()
    for words in ("Not sure: have a radiologist look", "Send the chest film.", "Taken back", "online", "breaks the rules"):
        expect(page.get_by_text(words).first).to_be_visible()
    page.screenshot(path=PICTURES / "centre-1280.png", full_page=True)
    page.locator("#p-older").wait_for(state="detached")
    page.get_by_role("link", name="5", exact=True).click()
    expect(page.get_by_role("heading", name="rpi-clinic-07 no. 5")).to_be_visible()
    expect(page.get_by_text(AID)).to_be_in_viewport()
    page.screenshot(path=PICTURES / "centre-outcome-1280.png")
    assert watched.troubles == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(browser: Browser, scene: Scene, scheme: str) -> None:
    fill(scene.device)
    watched = watch(browser, scene.home, viewport={"width": 390, "height": 844}, color_scheme=scheme)
    page = watched.page
    page.goto(scene.home)
    expect(page.get_by_text(AID)).to_be_in_viewport()
    page.screenshot(path=PICTURES / f"centre-390-{scheme}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    assert _faint_texts(watched) == []
    assert watched.troubles == []


def test_reading_on_while_new_results_come(browser: Browser, scene: Scene) -> None:
    for seq in range(1, 41):
        scene.device.send(messages.result(scene.device.name, seq))
    scene.device.wait_receipt(40)
    watched = watch(browser, scene.home, viewport={"width": 1280, "height": 700})
    page = watched.page
    page.goto(f"{scene.home}/?device={scene.device.name}")
    page.get_by_role("link", name="3", exact=True).focus()
    page.evaluate("window.scrollTo(0, 1500)")
    scene.device.send(messages.result(scene.device.name, 41))
    expect(page.get_by_role("link", name="41", exact=True)).to_be_attached(timeout=10_000)
    assert page.evaluate("window.scrollY") > 1000
    expect(page.get_by_role("link", name="3", exact=True)).to_be_focused()
    expect(page.locator("#f-device")).to_have_value(scene.device.name)
    assert watched.troubles == []


def test_what_devices_send_is_shown_as_text(browser: Browser, scene: Scene) -> None:
    name = scene.device.name
    scene.device.send(messages.status(name, model_name=EVIL), Channel.STATUS)
    values = json.loads(codec.encode(messages.result(name, 1))) | {"software": EVIL}
    scene.device.send_bytes(f"cxr/v1/{name}/result", json.dumps(values).encode())
    scene.device.send_bytes(f"cxr/v1/{name}/result", json.dumps(values | {"device": EVIL}).encode())
    scene.device.wait_receipt(1)
    watched = watch(browser, scene.home)
    page = watched.page
    page.goto(scene.home)
    expect(page.get_by_role("cell", name=EVIL)).to_be_visible()
    page.goto(f"{scene.home}/outcomes/{name}/{EPOCH}/1")
    expect(page.get_by_text(EVIL).first).to_be_visible()
    assert page.locator("main img, main script").count() == 0
    assert watched.dialogs == []
    assert watched.troubles == []


def test_the_policy_holds_even_if_markup_got_in(browser: Browser, scene: Scene) -> None:
    """The second wall: were a text ever put in unescaped, the browser would still not run it."""
    watched = watch(browser, scene.home)
    watched.page.goto(scene.home)
    watched.page.evaluate(
        "document.querySelector('main').insertAdjacentHTML('beforeend', '<img src=/x onerror=\"window.ran = 1\">')"
    )
    watched.page.wait_for_timeout(300)
    assert watched.page.evaluate("window.ran") is None
    assert any("Content Security Policy" in trouble for trouble in watched.troubles)


def test_a_database_that_goes_and_comes_back(browser: Browser, scene: Scene) -> None:
    scene.device.send(messages.result(scene.device.name, 1))
    scene.device.wait_receipt(1)
    watched = watch(browser, scene.home)
    watched.page.goto(scene.home)
    moved = scene.database.rename(scene.database.with_name("moved.db"))
    expect(watched.page.get_by_role("alert").filter(has_text="There is no database")).to_be_visible(timeout=10_000)
    moved.rename(scene.database)
    expect(watched.page.locator("table.outcomes tbody tr")).to_have_count(1, timeout=10_000)


def test_a_centre_that_stops_answering(browser: Browser, mosquitto: Mosquitto, tmp_path: Path) -> None:
    database = tmp_path / "centre.db"
    with aggregator(tmp_path, mosquitto.url, str(database)):
        with dashboard(tmp_path, str(database)) as home:
            page = watch(browser, home).page
            page.goto(home)
            expect(page.locator("#lost")).to_be_hidden()
        expect(page.locator("#lost")).to_be_visible(timeout=10_000)


def _faint_texts(watched: Watched) -> list[str]:
    """Texts whose contrast with what is behind them is below 4.5 to 1 (WCAG 2, level AA)."""
    faint: list[str] = watched.page.evaluate(
        """() => {
        const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
        const light = ([r, g, b]) => [r, g, b].map((c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
          .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
        const behind = (node) => {
          for (; node; node = node.parentElement) {
            const colour = numbers(getComputedStyle(node).backgroundColor);
            if (colour.length === 3 || colour[3] > 0.99) return colour;
          }
          return [255, 255, 255];
        };
        const out = [];
        for (const node of document.querySelectorAll('body *')) {
          const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
          if (!own || !node.getClientRects().length) continue;
          const a = light(numbers(getComputedStyle(node).color)), b = light(behind(node));
          const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
          if (ratio < 4.5) out.push(node.textContent.trim().slice(0, 40) + ' ' + ratio.toFixed(2));
        }
        return out;
      }"""
    )
    return faint
