"""The whole line on phantoms, with a training so short that the figures mean nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge.bundle import SHIPPED, load_bundle
from edge.contract.bundle import Manifest
from edge.preprocess import preprocess
from export.bundle import CARD_NAME, REPORT_NAME, write_bundle
from export.card import headline, model_card, reference_page
from export.chest import SPLIT_SEED, make_chest
from export.dataset import load_pixels, read_dataset
from export.model import training_set
from export.networks.ours import Plan
from export.phantom import phantom
from export.splits import patient_folds
from export.train import Phase, Recipe, train

TINY = Recipe(
    plan=Plan(stem=(16, 16, 16), blocks=((16, 2),)),
    pretrain=Phase(2, 1, 1e-3),
    phases=(Phase(2, 1, 1e-3),),
    prune=Phase(2, 1, 1e-3),
    batch=8,
)


PAGE = Path(__file__).parents[3] / "docs" / "reference" / "network.md"


@pytest.fixture(scope="module")
def made(data):
    return make_chest(data, TINY, seed=1, say=lambda line: None, folds=2)


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundle") / "chest"
    shipped = made.shipped
    write_bundle(out, shipped.graph, made.report, temperature=shipped.temperature, threshold=shipped.threshold, version="0")
    return out


def test_the_device_accepts_the_bundle_and_answers(folder):
    bundle = load_bundle(folder)
    assert bundle.manifest.classes == ["normal", "pneumonia", "covid19"]
    assert len(bundle.manifest.golden) == 3
    assert bundle.classifier.run(preprocess(phantom(99))).logits.shape == (3,)


def test_the_manifest_decodes_strictly_and_carries_the_headline(folder, made):
    manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
    assert manifest.metrics == headline(made.report)
    assert "research" in manifest.licence
    assert "not a medical device" in (folder / "LICENSE").read_text().replace("\n", " ")


def test_half_of_the_1x1_weights_are_zero(made):
    assert made.report["shipped"]["sparsity_of_1x1_convolutions"] == pytest.approx(0.5, abs=0.02)


def test_every_picture_is_tested_once(made):
    folds = made.report["cross_validation"]["folds"]
    assert sum(row["pictures"] for row in folds) == made.report["cross_validation"]["darkcovid"]["accuracy"]["pictures"] == 50


def test_a_classifier_that_sees_only_shapes_is_at_chance(made):
    assert made.report["controls"]["shape_only_macro_recall"] == made.report["controls"]["shape_only_chance"]


def test_the_source_left_out_shares_no_patient_with_training(data, made):
    samples = read_dataset(data, "darkcovid") + read_dataset(data, "ieee8023")
    split = patient_folds(samples, folds=2, seed=SPLIT_SEED)[-1]
    learned_from = {samples[i].patient for i in (*split.train, *split.validation) if samples[i].dataset == "darkcovid"}
    other = {sample.patient for sample in samples if sample.dataset == "ieee8023"}
    assert other & learned_from, "the sets share patients, or this test shows nothing"
    assert made.report["leave_source_out"]["ieee8023"]["accuracy"]["patients"] == len(other - learned_from)


def test_card_and_page_are_functions_of_the_report(folder, made):
    report = msgspec.json.decode((folder / "report.json").read_bytes())
    assert (folder / "MODEL_CARD.md").read_text() == model_card(report)
    assert f"{report['shipped']['parameters']:,} parameters" in model_card(report)
    assert reference_page(report) == reference_page(made.report)


def test_the_same_seed_gives_the_same_weights_and_another_others(data):
    samples = read_dataset(data, "darkcovid")
    everything = training_set(load_pixels(samples), samples, np.arange(len(samples)))
    first, again, other = (_weights(train(everything, replace(TINY, seed=seed), TINY.phases)) for seed in (1, 1, 2))
    assert np.allclose(first, again, atol=1e-5)
    assert not np.allclose(first, other, atol=1e-2)


def test_training_starts_from_the_given_weights_but_for_the_last_layer(data):
    samples = read_dataset(data, "kermany")
    two = training_set(load_pixels(samples), samples, np.arange(len(samples)), classes=2)
    start = train(two, TINY, TINY.phases)
    dark = read_dataset(data, "darkcovid")
    begun = train(training_set(load_pixels(dark), dark, np.arange(len(dark))), TINY, (), start)
    assert np.array_equal(begun.get_layer("stem1").get_weights()[0], start.get_layer("stem1").get_weights()[0])
    assert begun.get_layer("heat").get_weights()[0].shape[-1] == 3


def test_pages_of_the_shipped_bundle_are_current():
    report = msgspec.json.decode((SHIPPED / REPORT_NAME).read_bytes())
    manifest = msgspec.json.decode((SHIPPED / "manifest.json").read_bytes(), type=Manifest)
    assert (SHIPPED / CARD_NAME).read_text() == model_card(report), "run cxr-export pages"
    assert PAGE.read_text() == reference_page(report), "run cxr-export pages"
    assert manifest.metrics == headline(report)
    assert (manifest.temperature, manifest.threshold) == (report["shipped"]["temperature"], report["shipped"]["threshold"])


def _weights(model):
    return np.concatenate([values.ravel() for values in model.get_weights()])
