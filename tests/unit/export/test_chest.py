"""The whole line on phantoms, with a training so short that the figures mean nothing."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

import export.model
from edge.contract.bundle import Manifest
from edge.network.bundle import SHIPPED, load_bundle
from edge.pixels.preprocess import preprocess
from export.bundle import CARD_NAME, REPORT_NAME, write_bundle
from export.card import headline, model_card, reference_page
from export.chest import make_chest, make_model
from export.material import OTHER, read_material, thorax
from export.model import _extremes, float_logits
from export.networks.ours import FEATURES
from export.phantom import phantom
from export.predictions import as_picture
from export.protocols import replay_plan
from export.regression import descend
from export.train import Lesson, Pooled, Recipe, as_reader, find_lungs, find_signs, left_out, look
from export.unseen import shares
from export.views import Views

TINY = Recipe(views=3)
PAGE = Path(__file__).parents[3] / "docs" / "reference" / "network.md"


@pytest.fixture(scope="module")
def material(data):
    return read_material(data, 2, None, TINY, 1)


@pytest.fixture(scope="module")
def made(data):
    return make_chest(data, TINY, weights=None, seed=1, say=lambda line: None, folds=2)


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundle") / "chest"
    write_bundle(out, made.shipped, made.report, version="0")
    return out


def test_the_device_accepts_the_bundle_and_answers(folder):
    bundle = load_bundle(folder)
    assert bundle.manifest.classes == ["normal", "pneumonia", "covid19"]
    assert len(bundle.manifest.golden) == 3
    assert bundle.classifier.run(preprocess(phantom(99))).logits.shape == (3,)


def test_the_device_applies_what_was_calibrated(folder, made):
    bundle, shipped = load_bundle(folder), made.shipped
    picture = preprocess(phantom(99))
    decision = bundle.decide(picture)
    traits = bundle.classifier.run(picture).traits
    assert decision.typicality == round(shipped.typicality.of(traits), 4)
    candidates = sum(value >= shipped.candidate for value in decision.probabilities.values())
    assert decision.abstained == (candidates != 1 or decision.typicality < shipped.typicality.limit)


def test_the_manifest_decodes_strictly_and_carries_the_headline(folder, made):
    manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
    assert manifest.metrics == headline(made.report)
    assert "research" in manifest.licence
    assert "not a medical device" in (folder / "LICENSE").read_text().replace("\n", " ")


def test_the_same_inputs_give_the_same_bundle_to_the_byte(folder, made, tmp_path):
    write_bundle(tmp_path / "again", made.shipped, made.report, version="0")
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(tmp_path / "again") for path in (tmp_path / "again").rglob("*") if path.is_file())
    assert all((folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in names)


def test_every_picture_is_tested_once(made):
    folds = made.report["cross_validation"]["folds"]
    assert sum(row["pictures"] for row in folds) == made.report["cross_validation"]["darkcovid"]["accuracy"]["pictures"] == 50
    assert [p.precision for p in made.predictions] == ["int8", "float32", "int8"]
    assert all(len(p.pictures) == 74 for p in made.predictions)


def test_the_folds_of_darkcovid_can_be_given_to_another_network(made, material):
    samples = [sample for sample in material.samples if sample.dataset == "darkcovid" and sample.label != OTHER]
    plan = replay_plan(made.plan, samples, ["normal", "pneumonia", "covid19"])
    folds = {(p.dataset, p.file): fold for p, fold in zip(made.predictions[0].pictures, made.predictions[0].fold, strict=True)}
    for number, named in enumerate(plan.splits):
        assert named.split.test.size
        assert all(folds[(samples[i].dataset, as_picture(samples[i]).file)] == number for i in named.split.test)


def test_pictures_of_other_diseases_are_split_by_patient_and_teach_only_what_they_are_not(material):
    others = [i for i, sample in enumerate(material.samples) if sample.label == OTHER]
    assert others
    assert (material.allowed[others] == [1, 1, 0]).all()
    for split in material.splits:
        parts = [{material.samples[i].patient for i in part} for part in (split.train, split.validation, split.test)]
        assert len(set.union(*parts)) == sum(map(len, parts))
    assert sorted(np.concatenate([split.test for split in material.splits])) == list(range(len(material.samples)))


def test_a_classifier_that_sees_only_shapes_is_at_chance(made):
    assert made.report["controls"]["shape_only_macro_recall"] == made.report["controls"]["shape_only_chance"]


def test_the_source_left_out_is_all_there_and_the_others_are_held_out(made, material):
    for name, row in made.report["left_out"].items():
        if name == "kermany":
            continue
        assert row["confident_wrong"]["pictures"] == sum(sample.source == name for sample in material.samples)
        assert row["seen"]["pictures"] == sum(sample.source != name for sample in material.samples)
        assert len(row["confident_wrong_by_model"]) == len(material.splits)


def test_of_several_models_the_mean_counts(material):
    said = [np.array([[True, False], [True, True], [False, False]]), np.array([[False, False], [True, False], [False, False]])]
    found = shares(said, material.samples[:2])
    assert [found[name]["value"] for name in ("confident_wrong", "answered", "familiar")] == [0.25, 0.75, 0]


def test_card_and_page_are_functions_of_the_report(folder, made):
    report = msgspec.json.decode((folder / "report.json").read_bytes())
    assert (folder / "MODEL_CARD.md").read_text() == model_card(report)
    assert f"{report['shipped']['parameters']:,} parameters" in model_card(report)
    assert reference_page(report) == reference_page(made.report)


def test_the_same_lesson_gives_the_same_weights(material):
    everything = np.arange(len(material.allowed))
    lesson = Lesson(material.views, material.allowed, material.masked, material.source, everything)
    first, again = (_weights(_train(lesson, TINY)) for _ in range(2))
    assert (first == again).all()


def test_a_reader_learns_what_there_is_to_learn_and_looks_for_it_in_the_lungs():
    rng = np.random.default_rng(0)
    label = np.arange(60) % 3
    lungs = np.zeros((1, 60, 4, 4), np.float16)
    lungs[:, :, 1:3] = 1
    features = rng.uniform(0, 1, (1, 60, 4, 4, FEATURES)).astype(np.float16)
    features[..., 10] += lungs * 3  # what lungs look like
    for picture in range(60):
        features[0, picture, 1:3, :, label[picture]] += 2  # the sign of its class
    emptied = rng.uniform(0, 1, (60, 4, 4, FEATURES)).astype(np.float16)
    views = Views(features, features, lungs, emptied)
    everything, one_source = np.arange(60), np.zeros(60, np.int64)
    lesson = Lesson(views, np.eye(3, dtype=np.float32)[label], np.ones(60, np.bool_), one_source, everything)
    model = _train(lesson, Recipe(views=1, plain=1))
    out = {name: np.asarray(value) for name, value in model(features[0].astype(np.float32)).items()}
    assert (out["scores"].argmax(axis=1) == label).all()
    for layer in ("lungs", "signs"):
        steps = model.get_layer(layer).get_weights()[0][0, 0]
        steps = steps / np.abs(steps).max(axis=0) * 127
        np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
    assert (out["lungs"][:, 1:3] > 0).mean() > 0.85 > 0.15 > (out["lungs"][:, [0, 3]] > 0).mean()
    speaking = np.maximum(out["heat"][np.arange(60), :, :, label], 0)
    assert speaking[:, 1:3].sum() > 0.8 * speaking.sum()
    assert out["heat"].sum(axis=3) == pytest.approx(0, abs=0.02 * float(np.ptp(out["heat"])))  # rounding
    nothing = np.asarray(model(emptied.astype(np.float32))["scores"])
    assert np.ptp(nothing, axis=1).mean() < 0.3 * np.ptp(out["scores"], axis=1).mean()


def test_a_reader_does_not_rely_on_what_int8_and_float_see_differently():
    rng = np.random.default_rng(0)
    label = np.arange(90) % 3
    exact = rng.uniform(0, 1, (1, 90, 4, 4, FEATURES)).astype(np.float16)
    for picture in range(90):
        exact[0, picture, ..., [label[picture], 10 + label[picture]]] += 1  # two signs of each class, equally good
    features = exact.copy()
    features[..., 10:13] += rng.normal(0, 0.3, (1, 90, 1, 1, 3)).astype(np.float16)  # int8 shakes one of them
    lungs = np.ones((1, 90, 4, 4), np.float16)
    lungs[..., 0, 0] = 0
    views = Views(features, exact, lungs, np.zeros((90, 4, 4, FEATURES), np.float16))
    lesson = Lesson(views, np.eye(3, dtype=np.float32)[label], np.ones(90, np.bool_), np.zeros(90, np.int64), np.arange(90))

    def disagreement(steadiness):
        model = _train(lesson, Recipe(views=1, plain=1, steadiness=steadiness))
        scores = [np.asarray(model(given[0].astype(np.float32))["scores"]) for given in (features, exact)]
        assert (scores[0].argmax(axis=1) == label).mean() > 0.9
        return np.abs(scores[0] - scores[1]).mean() / np.ptp(scores[1])

    assert disagreement(10) < 0.5 * disagreement(0)


def test_what_is_said_of_a_picture_left_out_was_learned_without_it():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 60)  # there is nothing to learn
    features = rng.uniform(0, 1, (60, 200))
    seen = Pooled(features, (features,), (), features * 0, np.eye(3)[label], np.zeros(60, np.int64))
    recipe, hands = Recipe(plain=1, indifference=0), np.arange(60) % 4
    found = left_out(seen, hands, recipe, find_signs(seen, recipe))
    assert ((features @ find_signs(seen, recipe)).argmax(axis=1) == label).mean() > 0.9
    assert (found.argmax(axis=1) == label).mean() < 0.6
    others = find_signs(
        seen.only(np.flatnonzero(hands != 2)), Recipe(plain=1, indifference=0, strictness=recipe.strictness * 60 / 45)
    )
    assert found[hands == 2] == pytest.approx(features[hands == 2] @ others, abs=0.02)


def test_a_reader_does_not_rely_on_the_source():
    """Pneumonia is there from two sources, covid19 from the second alone: what tells the sources apart must not tell covid19."""
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1, 1, 2], 30)
    source = np.repeat([0, 0, 1, 1], 30)
    features = rng.uniform(0, 1, (1, 120, 4, 4, FEATURES)).astype(np.float16)
    for picture in range(120):
        features[0, picture, ..., [label[picture], 10 + source[picture]]] += 1
    lungs = np.ones((1, 120, 4, 4), np.float16)
    lungs[..., 0, 0] = 0
    views = Views(features, features, lungs, np.zeros((120, 4, 4, FEATURES), np.float16))
    lesson = Lesson(views, np.eye(3, dtype=np.float32)[label], np.ones(120, np.bool_), source, np.arange(120))

    def gap(indifference):
        model = _train(lesson, Recipe(views=1, plain=1, indifference=indifference))
        scores = np.asarray(model(features[0].astype(np.float32))["scores"])
        assert (scores.argmax(axis=1) == label).mean() > 0.9
        return abs(scores[30:60, 2].mean() - scores[60:90, 2].mean()) / np.ptp(scores)

    assert gap(1) < 0.2 * gap(0)


def test_the_least_point_is_found_where_whole_steps_would_run_away():
    def loss(place):
        return float(np.logaddexp(place, -place).sum()), np.tanh(place)

    start = np.array([2.0, -3.0])
    assert (np.abs(start - np.tanh(start) * np.cosh(start) ** 2) > 10).all()
    found = descend(loss, (lambda place: np.diag(1 / np.cosh(place) ** 2), lambda place: np.eye(2)), start[:, np.newaxis])
    assert found.shape == (2, 1)
    assert found == pytest.approx(0, abs=1e-3)


def test_a_model_is_calibrated_by_what_is_said_of_patients_left_out(material, monkeypatch):
    split, given = material.splits[0], {}

    def watch(name):
        function = getattr(export.model, name)

        def watched(*parts):
            result = function(*parts)
            given[name] = (*parts, result)
            return result

        monkeypatch.setattr(export.model, name, watched)

    for name in ("left_out", "fit_thresholds", "crossed_typicality", "run", "quantize"):
        watch(name)
    model = make_model(material, split, TINY)
    taught = [int(i) for i in np.concatenate([split.train, split.validation])]
    pooled, hand, _, _, logits = given["left_out"]
    assert len(pooled.plain) == len(taught)
    assert (hand == material.hand[taught]).all()
    people = {}
    for i, number in zip(taught, hand, strict=True):
        assert people.setdefault(material.samples[i].patient, number) == number
    assert len(set(people.values())) > 1
    # The int8 file says something slightly else than the signs that it was made of.
    labelled = np.array([material.samples[i].label != OTHER for i in taught])
    calibrated, said = given["fit_thresholds"][0], given["run"][-1].logits[labelled]
    assert not np.array_equal(calibrated, logits[labelled])
    assert np.abs(calibrated - logits[labelled]).mean() < 0.5 * np.abs(calibrated - said).mean()
    assert model.temperature == given["fit_thresholds"][-1].temperature
    traits, _, whose, _, _ = given["crossed_typicality"]
    assert (traits == given["run"][-1].traits).all()
    assert list(whose) == [material.samples[i].patient for i in taught]
    # Of the pictures that the ranges are measured on, the last are those of the most extreme scores.
    scores = float_logits(model.network, material.pixels[taught])
    shown = given["quantize"][1][-6:]
    reached = scores[[(shown == picture).all(axis=(1, 2)).any() for picture in material.pixels[taught]]]
    # The scores that they were chosen by are those of int8 eyes: two that are nearly alike may change places.
    alike = 0.05 * np.ptp(scores, axis=0)
    assert (reached.max(axis=0) >= scores.max(axis=0) - alike).all()
    assert (reached.min(axis=0) <= scores.min(axis=0) + alike).all()


def test_no_border_of_a_source_is_left_where_it_is_left_out(material, monkeypatch):
    seen = {}

    def views(look, pixels, lungs, groups, *rest, **more):
        seen["groups"] = groups
        return material.views

    monkeypatch.setattr("export.material.make_views", views)
    material.views_without("ieee8023")
    every = [sample.source for sample in material.samples]
    fold = {int(i): number for number, split in enumerate(material.splits) for i in split.test}
    for group in set(seen["groups"][: len(every)]):
        there = np.flatnonzero(seen["groups"][: len(every)] == group)
        assert len({every[i] == "ieee8023" for i in there}) == 1
        assert len({fold[int(i)] for i in there}) == 1


def test_the_pictures_of_the_most_extreme_scores_are_found():
    assert list(_extremes(np.array([[10, 200], [50, 100], [20, 90], [30, 0], [40, 100]]))) == [0, 1, 3]


def test_what_lies_between_the_lungs_may_speak_half():
    lungs = np.zeros((20, 20), np.bool_)
    assert not thorax(lungs).any()
    lungs[5:15, 3:7] = lungs[5:15, 13:17] = True
    found = thorax(lungs)
    assert (found[lungs] == 1).all()
    assert (found[6:14, 8:12] == 0.5).all()
    assert (found[:4] == 0).all()
    assert not found[:, :2].any()
    line = np.zeros((20, 20), np.bool_)
    line[4, 3:9] = True
    assert (thorax(line) >= line / 2).all()


def test_pages_of_the_shipped_bundle_are_current():
    report = msgspec.json.decode((SHIPPED / REPORT_NAME).read_bytes())
    manifest = msgspec.json.decode((SHIPPED / "manifest.json").read_bytes(), type=Manifest)
    assert (SHIPPED / CARD_NAME).read_text() == model_card(report), "run cxr-export pages"
    assert PAGE.read_text() == reference_page(report), "run cxr-export pages"
    assert manifest.metrics == headline(report)
    assert (manifest.temperature, manifest.candidate) == (report["shipped"]["temperature"], report["shipped"]["candidate"])


def _train(lesson, recipe):
    lungs = find_lungs(lesson, recipe)
    return as_reader(lungs, find_signs(look(lesson, lungs), recipe), lesson.views.features.shape[2])


def _weights(model):
    return np.concatenate([values.ravel() for values in model.get_weights()])
