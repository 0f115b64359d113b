"""The quality gate: what it learns from, what its figures are made of, and what ends in a bundle. Trainings here are tiny."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops

import export.gate
import export.make_gate
from edge.contract.bundle import Manifest
from edge.errors import Refused
from edge.network.bundle import load_bundle
from edge.network.gate import GOOD
from edge.network.manifest import SHIPPED
from edge.network.typicality import Typicality
from edge.pixels.decode import decode_file
from edge.pixels.network_input import INPUT_SIDE
from edge.pixels.preprocess import preprocess_image
from edge.pixels.quality import check_quality
from export.bundle import REPORT_NAME, Words, write_files
from export.dataset import read_dataset
from export.errors import DataError, ReportError
from export.gate import chances_of, make_gate, widened
from export.gate_files import GATE_REPORT_NAME, MadeGate, fits, read_gate, write_gate
from export.gate_measure import Verdicts, by_kind, in_folds, judged, refused_good, share, without
from export.gate_page import gate_figures, quality_page
from export.gate_strange import strange_things
from export.gate_views import Views, make_views, other_things, phantoms, radiographs, shrink
from export.make_gate import gate
from export.material import teaching_children
from export.phantom import phantom
from export.report.bench import shipped_split
from export.splits import patient_folds
from export.wrong_views import HARMLESS, REASON_OF, REASONS, harmless, views_of

BUNDLE = load_bundle()
PATIENTS = 16
PAGE = Path(__file__).parents[3] / "docs" / "reference" / "quality.md"
DATA = Path(__file__).parents[4] / "shared" / "data"


def film(seed=1, width=320, height=320):
    return Image.fromarray(phantom(seed, width=width, height=height))


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    folder = tmp_path_factory.mktemp("things")
    rng = np.random.default_rng(0)
    for number in range(6):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 9), dtype=np.uint8))
        coarse.resize((260, 260)).save(folder / f"{('ct', 'photo')[number % 2]}-{number}.jpg")
    return folder


@pytest.fixture(scope="module")
def views(things):
    return make_views([*phantoms(PATIENTS), *other_things(things)], BUNDLE.classifier, 1)


@pytest.fixture(scope="module")
def made(views):
    return make_gate(views, 1, epochs=40)


def test_every_kind_of_view_has_a_reason_and_the_good_one_comes_first():
    kinds = [view.kind for view in views_of(film(), np.random.default_rng(0))]
    assert kinds[: 1 + HARMLESS] == [GOOD] + ["harmless"] * HARMLESS
    assert set(kinds) | {"ct", "photo"} == set(REASON_OF)
    assert REASONS[0] == GOOD
    assert set(BUNDLE.gate.reasons) == set(REASONS)


@given(seed=st.integers(0, 10_000), width=st.integers(200, 700), height=st.integers(200, 700))
@settings(max_examples=15, deadline=None)
def test_views_are_gray_large_enough_and_the_same_each_time(seed, width, height):
    image = film(seed % 3, width, height)
    before = image.tobytes()
    first, again = (list(views_of(image, np.random.default_rng(seed))) for _ in range(2))
    assert [view.image.tobytes() for view in first] == [view.image.tobytes() for view in again]
    assert all(view.image.mode == "L" and min(view.image.size) > 30 for view in first)
    assert image.tobytes() == before


def test_the_wrong_views_are_what_they_are_called():
    image = film(2, 512, 512)
    found = {view.kind: view.image for view in views_of(image, np.random.default_rng(3))}
    plain = np.asarray(image, float)
    assert np.asarray(found[GOOD], float).mean() == plain.mean()
    assert np.asarray(found["dark"], float).mean() < 0.5 * plain.mean()
    assert np.abs(np.diff(np.asarray(found["blur"], float))).mean() < 0.5 * np.abs(np.diff(plain)).mean()
    assert found["crop"].width < 0.65 * image.width
    assert harmless(image, np.random.default_rng(1)).tobytes() != image.tobytes()


def test_the_graph_sees_what_was_learned_from(made):
    picture = np.asarray(preprocess_image(film(5)))
    assert widened(shrink(picture)).shape == (INPUT_SIDE, INPUT_SIDE)
    assert np.array_equal(shrink(widened(shrink(picture))), shrink(picture))
    traits = BUNDLE.classifier.run(picture).traits
    device = made.on_device()
    np.testing.assert_allclose(device.chances(widened(shrink(picture)), traits), device.chances(picture, traits), atol=0.2)


def test_the_same_views_give_the_same_gate_to_the_byte(views, made):
    again = make_gate(views, 1, epochs=40)
    assert again.graph == made.graph
    assert again.weights.tobytes() == made.weights.tobytes()
    assert again.limit == made.limit
    assert make_gate(views, 2, epochs=1).graph != made.graph


def test_the_limit_is_chosen_of_patients_of_whom_nothing_was_learned(views, made, monkeypatch):
    taught, asked = [], []
    learn, ask = export.gate._trained, export.gate.chances_of
    monkeypatch.setattr(export.gate, "_trained", lambda some, seed, epochs: taught.append(some) or learn(some, seed, 1))
    monkeypatch.setattr(export.gate, "chances_of", lambda gate, some: asked.append(some) or ask(gate, some))
    limit = make_gate(views, 1).limit
    assert not set(taught[0].patient) & set(asked[0].patient)
    assert {REASON_OF[str(kind)] for kind in asked[0].kind} == {GOOD}
    assert 0 < limit <= export.gate.HIGHEST_LIMIT


def test_it_learns(views, made):
    chances = chances_of(made.on_device(), views)
    good = np.array([REASON_OF[str(kind)] == GOOD for kind in views.kind])
    assert chances.shape == (len(views.kind), len(REASONS))
    assert np.median(chances[good, 0]) > 5 * np.median(chances[~good, 0])
    assert (chances[good, 0] < made.limit).mean() < 0.05
    assert (chances[views.kind == "inverted", 0] < made.limit).mean() > 0.5


def always(refuse):
    """A gate that refuses everything as inverted, or nothing."""
    weights = np.zeros((len(REASONS), BUNDLE.classifier.traits + 1), np.float32)
    weights[REASONS.index("inverted") if refuse else 0, -1] = 1000
    return weights


@pytest.fixture(scope="module")
def refusing(made):
    return replace(made, weights=always(True), limit=0.5)


def test_no_patient_is_judged_by_a_gate_that_has_learned_from_him(views, refusing):
    taught = []

    def make(some: Views) -> MadeGate:
        taught.append(set(some.patient))
        return refusing

    told = in_folds(views, make, lambda line: None)
    assert len(taught) == 3
    assert sorted(told.views.file) == sorted(views.file)
    assert set.intersection(*taught) == set()
    place = 0
    for learned in taught:
        count = len(views.patient) - int(np.isin(views.patient, sorted(learned)).sum())
        assert not set(told.views.patient[place : place + count]) & learned
        place += count
    without(views, views.kind, "ct", make, lambda line: None)
    assert not {name for name in taught[-1] if name.startswith("ct")}


def test_shares_and_lists_say_what_was_refused(views, made, refusing):
    rows = by_kind(judged(refusing, views))
    assert all(row["refused"]["value"] == 1 for row in rows.values())
    assert rows["inverted"]["right_reason"] == 1
    assert rows["blur"]["right_reason"] == 0
    assert "right_reason" not in rows[GOOD]
    assert len(refused_good(judged(refusing, views))) == PATIENTS
    passing = judged(replace(made, weights=always(False), limit=0.5), views)
    assert refused_good(passing) == []
    assert by_kind(passing)["blur"]["refused"]["value"] == 0
    assert by_kind(passing)["blur"]["refused"]["high"] > 0
    half = share(np.arange(40) % 2 == 0, np.array([str(i // 4) for i in range(40)]))
    assert (half["value"], half["pictures"], half["patients"]) == (0.5, 40, 10)


def test_drawn_chests_are_told_from_strange_things_by_what_the_device_says(made, refusing):
    rows = strange_things(BUNDLE.classifier, refusing.on_device())
    assert rows["drawn chest, upright"] == {"pictures": 20, "refused": 20, "by_gate": 20}
    assert any(kind.startswith("pydicom test file, modality CT") for kind in rows)
    rows = strange_things(BUNDLE.classifier, replace(made, weights=always(False), limit=0.5).on_device())
    assert rows["drawn chest, upright"]["refused"] == rows["noise"]["by_gate"] == 0


@pytest.fixture
def bundle(tmp_path):
    return shutil.copytree(SHIPPED, tmp_path / "bundle")


def test_a_gate_in_a_bundle_is_the_gate_that_the_device_has(bundle, made, views):
    write_gate(bundle, made, {"figure": 1})
    loaded = load_bundle(bundle)
    assert read_gate(bundle, loaded).limit == made.limit
    some = views.only(views.kind == "rot90")
    np.testing.assert_array_equal(chances_of(loaded.gate, some), chances_of(made.on_device(), some))
    manifest = msgspec.json.decode((bundle / "manifest.json").read_bytes(), type=Manifest)
    assert GATE_REPORT_NAME in manifest.parts
    assert all(set(golden.scores) == {"ai-edge-litert", "tflite-runtime"} for golden in manifest.gate.golden)
    before = (bundle / "manifest.json").read_bytes()
    write_gate(bundle, made, {"figure": 1})
    assert (bundle / "manifest.json").read_bytes() == before


def test_another_network_in_its_folder_has_no_gate(bundle):
    graph = (bundle / "model.tflite").read_bytes()
    words = Words("x", "1", BUNDLE.manifest.classes, 0.1, [], "", "", "", {}, "card", {}, minimum_age=18)
    write_files(bundle, Network(graph), words)
    loaded = load_bundle(bundle)
    assert loaded.gate is None
    assert loaded.manifest.minimum_age == 18
    assert not list(bundle.glob("gate.*"))


@dataclass(frozen=True)
class Network:
    graph: bytes
    temperature: float = 1.0
    candidate: float = 0.5
    sensitivity: dict[str, dict[str, float]] = field(default_factory=dict)
    typicality: Typicality | None = None


def test_a_gate_belongs_to_the_traits_that_it_reads():
    class Other:
        def run(self, picture):
            scores = BUNDLE.classifier.run(picture)
            return replace(scores, traits=scores.traits + (picture[0, 0] == 1))

    pictures = np.zeros((3, INPUT_SIDE, INPUT_SIDE), np.uint8)
    assert fits(BUNDLE.classifier, Other(), pictures)
    pictures[2] = 1
    assert not fits(BUNDLE.classifier, Other(), pictures)


@pytest.fixture
def fitting(bundle, data):
    """The shipped network as if it had been made of the phantoms of this test's data."""
    samples = [sample for name in ("darkcovid", "ieee8023") for sample in read_dataset(data, name)]
    split = patient_folds(samples, folds=5, seed=7)[4]
    report = msgspec.json.decode((bundle / REPORT_NAME).read_bytes())
    unseen = {samples[int(place)].patient for place in split.test}
    report["shipped"] = {"fold": 4, "test": {"accuracy": {"pictures": len(split.test), "patients": len(unseen)}}}
    (bundle / REPORT_NAME).write_bytes(msgspec.json.encode(report))
    manifest = msgspec.json.decode((bundle / "manifest.json").read_bytes(), type=Manifest)
    parts = manifest.parts | {REPORT_NAME: hashlib.sha256((bundle / REPORT_NAME).read_bytes()).hexdigest()}
    (bundle / "manifest.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, parts=parts)))
    return bundle, unseen


def test_the_shipped_gate_learns_nothing_of_what_its_network_has_not_seen(fitting, data, made, things, monkeypatch, tmp_path):
    bundle, unseen = fitting
    taught = []

    def learn(views, seed, *, epochs):
        taught.append(set(views.patient))
        return made

    monkeypatch.setattr(export.make_gate, "make_gate", learn)
    monkeypatch.setattr(export.make_gate, "PHANTOMS", 2)
    root = tmp_path / "data"
    root.mkdir()
    for name in ("darkcovid", "ieee8023", "kermany"):
        (root / name).symlink_to(data / name)
    with pytest.raises(DataError, match="what is no chest radiograph"):
        gate(bundle, root, lambda line: None)
    (root / "not_chest").symlink_to(things)
    taught.clear()
    report = gate(bundle, root, lambda line: None)
    assert unseen
    assert not taught[0] & unseen, "the first one made is shipped"
    children = read_dataset(root, "kermany")
    learned = {child.patient for child in teaching_children(children, 1)}
    assert {child.patient for child in children} & set.union(*taught) == learned
    assert load_bundle(bundle).gate.limit == made.limit == report["limit"]
    assert msgspec.json.decode((bundle / GATE_REPORT_NAME).read_bytes()) == msgspec.json.decode(msgspec.json.encode(report))
    assert set(report["left_out"]) == {"nih-chestxray8", "ieee8023", "kermany"}
    assert "# The quality gate" in quality_page(report)
    assert any("refuses" in line for line in gate_figures(report))


def test_a_bundle_of_other_data_is_refused(bundle, data):
    with pytest.raises(ReportError, match="Give the data that it was made from"):
        gate(bundle, data, lambda line: None)


def test_a_picture_that_cannot_be_read_is_named(data, tmp_path):
    sample = read_dataset(data, "darkcovid")[0]
    broken = tmp_path / "broken.png"
    broken.write_bytes(sample.file.read_bytes()[:500])
    with pytest.raises(DataError, match="cannot be read"):
        list(radiographs([replace(sample, file=broken)]))


def test_views_do_not_depend_on_what_comes_after(views):
    few = make_views(list(phantoms(2)), BUNDLE.classifier, 1)
    count = len(few.kind)
    assert np.array_equal(few.small, views.small[:count])
    assert np.array_equal(few.traits, views.traits[:count])


def test_verdicts_keep_their_order(views, refusing):
    told = judged(refusing, views)
    assert isinstance(told, Verdicts)
    assert told.refused.all()
    assert set(told.reason) == {"inverted"}


def test_the_page_and_the_figures_are_of_the_shipped_gate():
    report = msgspec.json.decode((SHIPPED / GATE_REPORT_NAME).read_bytes())
    assert PAGE.read_text("utf-8") == quality_page(report)
    assert report["model_sha256"] == BUNDLE.manifest.model_sha256
    assert report["limit"] == BUNDLE.gate.limit
    assert report["bytes"] == len((SHIPPED / "gate.tflite").read_bytes()) + len((SHIPPED / "gate.f32").read_bytes())
    assert report["reasons"] == list(BUNDLE.gate.reasons) == list(REASONS)


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the real pictures")
def test_what_is_burnt_out_is_refused_and_no_film_as_it_came():
    samples = [sample for name in ("darkcovid", "ieee8023", "kermany") for sample in read_dataset(DATA, name)][::40]
    refused = 0
    for sample in samples:
        came = decode_file(sample.file)
        check_quality(came)
        check_quality(replace(came, image=ImageChops.invert(came.image)))  # another reason's
        with contextlib.suppress(Refused):
            check_quality(replace(came, image=came.image.point(lambda grey: min(255, round(2.2 * grey)))))
            continue
        refused += 1
    assert len(samples) > 40
    assert refused / len(samples) >= 0.9


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the real pictures")
def test_the_shipped_gate_does_what_its_page_says_on_pictures_that_it_has_not_seen():
    samples = [sample for name in ("darkcovid", "ieee8023") for sample in read_dataset(DATA, name)]
    unseen = [samples[int(place)] for place in shipped_split(SHIPPED, samples).test[::6]]
    shipped = read_gate(SHIPPED, BUNDLE)
    told = by_kind(judged(shipped, make_views(radiographs(unseen), BUNDLE.classifier, 9)))
    assert told[GOOD]["refused"]["value"] <= 0.08
    for kind in ("rot90", "rot270", "rot180", "inverted", "blur"):
        assert told[kind]["refused"]["value"] >= 0.85
