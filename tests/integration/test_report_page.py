"""The report in a real Chromium: it needs nothing from outside, and no part of it is cut off on a telephone."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from playwright.sync_api import Browser, expect

from export.phantom import phantom
from export.predictions import Picture, Predictions
from export.report.inputs import CardTexts, HeatMap, SamplePicture
from export.report.page import Made, Parts, write_report
from export.report.pictures import png
from tests.support.browser import watch

CLASSES = ["normal", "pneumonia", "covid19"]
LONG = "47fc1a0adf12730c13aab06aaf4b38b83db9d748720e5d2e38938fd7d2a4336c"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 90)
    pictures = [
        Picture(dataset="set", file=f"{i}.png", label=CLASSES[t], patient=f"p{i}", source="ab"[i % 2], age=40.0)
        for i, t in enumerate(truth)
    ]
    whole = Predictions(
        network="net",
        classes=CLASSES,
        protocol="5-fold",
        grouped=True,
        precision="int8",
        pictures=pictures,
        fold=[i % 5 for i in range(90)],
        logits=(rng.normal(0, 1, (90, 3)) + 2 * np.eye(3)[truth]).tolist(),
        temperature=[1.0] * 90,
        threshold=[0.6] * 90,
    )
    blind = msgspec.structs.replace(whole, condition="centre_out", logits=rng.normal(0, 1, (90, 3)).tolist())
    other = msgspec.structs.replace(whole, network="p3", logits=rng.normal(0, 1, (90, 3)).tolist())
    sample = SamplePicture(
        picture=png(phantom(1, width=96, height=96)),
        dataset="set",
        label="normal",
        answer="covid19",
        abstained=False,
        probabilities={"normal": 0.2, "covid19": 0.8},
        heat=[HeatMap(network="net", method="class activation map", values=[[0.0, 1.0], [0.5, 0.0]])],
    )
    card = CardTexts(
        name="net", intended_use="A test.", must_not=["Anything."], trained_on=["Nothing."], licence="none", limits=["All."],
        facts={"Weights": LONG},
    )  # fmt: skip
    out = tmp_path_factory.mktemp("report")
    write_report(out, [whole, blind, other], Parts(card=card, samples=[sample]), Made("cxr-export", 0, {}, {"p.json": LONG}))
    return out / "report.html"


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "light"), (390, "dark")])
def test_the_page_fits_and_asks_nobody(browser: Browser, page_file: Path, width: int, scheme: str) -> None:
    watched = watch(browser, "data:", viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = watched.page
    page.goto(page_file.as_uri())
    assert [trouble for trouble in watched.troubles if page_file.as_uri() not in trouble] == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 50)")
    expect(page.get_by_role("heading", level=1)).to_contain_text("can and cannot do")
    works, fails = (
        page.get_by_text("Where it works, as far as it does"),
        page.get_by_text("Where it fails, or is not known to work"),
    )
    assert works.bounding_box() is not None
    if width > 1000:
        assert works.bounding_box()["y"] == fails.bounding_box()["y"], "failures stand beside successes, not below them"
    shown = page.locator("picture img").first.evaluate("image => image.currentSrc === image.src")
    assert shown == (scheme == "light"), "dark pages have dark charts"
    page.close()


def test_on_paper_nothing_is_folded_away(browser: Browser, page_file: Path) -> None:
    page = browser.new_page(color_scheme="dark")
    page.goto(page_file.as_uri())
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("picture img").first.evaluate("image => image.currentSrc === image.src")
    hidden = page.get_by_text("Measured 0.83.")
    assert hidden.evaluate("element => element.getBoundingClientRect().height") > 10
    page.close()
