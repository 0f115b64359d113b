"""The report: figures by hand, and a page that says what its figures.json says."""

from __future__ import annotations

import html
import json
import math
import re

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from export.cli import main
from export.compress.rows import Interval, Row, Table
from export.compress.table import write as write_table
from export.errors import ReportError
from export.history import Epoch
from export.metrics import accuracy, auc, aucs, bounded, confusion, confusions, draws
from export.predictions import Picture, Predictions, write_predictions
from export.report import charts
from export.report.blocks import to_blocks
from export.report.figures import concern_of, figures
from export.report.headline import plain_words, warnings
from export.report.inputs import SamplePicture, Span
from export.report.papers import PRINTED, against
from export.report.score import predictive_values, score
from export.report.words import span, use_of, verdict

CLASSES = ["normal", "pneumonia", "covid19"]


@pytest.fixture(autouse=True, scope="module")
def _coarse_charts():
    """Nobody looks at these charts; drawing them is most of the time."""
    before, charts._DPI = charts._DPI, 24
    yield
    charts._DPI = before


def predicted(truth, logits, **changes):
    """Return predictions of one picture a patient, but for the names in `changes`."""
    truth = list(truth)
    n = len(truth)
    columns = {name: changes.pop(name, [value] * n) for name, value in (("sources", "here"), ("datasets", "set"), ("views", "PA"))}
    people = changes.pop("people", [f"p{i}" for i in range(n)])
    pictures = [
        Picture(
            dataset=columns["datasets"][i],
            file=f"{i}.png",
            label=truth[i] if isinstance(truth[i], str) else CLASSES[truth[i]],
            patient=people[i],
            source=columns["sources"][i],
            view=columns["views"][i],
            age=float(20 + i % 60),
            sex="FM"[i % 2],
        )
        for i in range(n)
    ]
    given = {
        "network": "net",
        "classes": CLASSES,
        "protocol": "5-fold",
        "grouped": True,
        "precision": "int8",
        "pictures": pictures,
        "fold": [0] * n,
        "logits": np.asarray(logits, dtype=float).tolist(),
        "temperature": [1.0] * n,
        "threshold": [0.0] * n,
    }
    return Predictions(**(given | changes))


def guesses(n, seed=0, **changes):
    """Right by chance: logits that know nothing of the truth."""
    rng = np.random.default_rng(seed)
    return predicted(rng.integers(0, 3, n), rng.normal(0, 1, (n, 3)), **changes)


def skilled(n, seed=1, strength=1.6, **changes):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, n)
    return predicted(truth, rng.normal(0, 1, (n, 3)) + strength * np.eye(3)[truth], **changes)


def test_weights_in_one_product_give_what_one_at_a_time_gives():
    rng = np.random.default_rng(3)
    truth, answer, level = rng.integers(0, 3, 40), rng.integers(0, 3, 40), rng.integers(0, 6, 40).astype(float)
    weights = draws(np.array([f"p{i // 2}" for i in range(40)]), replicates=20)
    assert weights.shape == (20, 40)
    assert np.array_equal(weights[:, ::2], weights[:, 1::2]), "both pictures of a patient are drawn as often"
    for row, table, area in zip(weights, confusions(truth, answer, 3, weights), aucs(truth == 1, level, weights), strict=True):
        assert np.array_equal(table, confusion(truth, answer, 3, row))
        assert area == pytest.approx(auc(truth == 1, level, row), nan_ok=True)


def test_a_share_that_never_varied_gets_the_exact_interval():
    found = bounded(1.0, np.ones(50), 30, 20)
    assert (found.low, found.high) == (pytest.approx(0.025 ** (1 / 20)), 1.0)
    assert bounded(0.0, np.zeros(50), 30, 20).high == pytest.approx(1 - 0.025 ** (1 / 20))
    assert bounded(math.nan, np.ones(3), 1, 1) is None
    assert bounded(0.5, np.full(5, 0.5), 9, 9).low == 0.5


def test_predictive_values_by_bayes():
    ppv, npv = predictive_values(np.array([0.9]), np.array([0.8]), 0.1)
    assert ppv[0] == pytest.approx(0.09 / (0.09 + 0.18))
    assert npv[0] == pytest.approx(0.72 / (0.72 + 0.01))


def test_class_figures_by_hand():
    truth = [2] * 12 + [0] * 24
    logits = np.array([[0, 0, 5]] * 9 + [[5, 0, 0]] * 3 + [[5, 0, 0]] * 20 + [[0, 0, 5]] * 4)
    (block,) = to_blocks([predicted(truth, logits)])
    found = score(block)
    covid = found.of("covid19")
    assert covid.sensitivity.value == pytest.approx(9 / 12)
    assert covid.specificity.value == pytest.approx(20 / 24)
    assert covid.f1.value == pytest.approx(18 / (18 + 3 + 4))
    assert covid.auc.value == pytest.approx((9 * 20 + 0.5 * (9 * 4 + 3 * 20)) / (12 * 24))
    assert covid.predictive[1].ppv.value == pytest.approx(0.075 / (0.075 + 0.9 * 4 / 24))
    assert found.of("pneumonia").sensitivity is None
    assert found.confusion == ((20, 0, 4), (0, 0, 0), (3, 0, 9))
    assert found.macro_recall.value == pytest.approx((9 / 12 + 20 / 24) / 2)
    assert 0.4 < covid.sensitivity.low < 0.75 < covid.sensitivity.high <= 1


def test_perfect_specificity_does_not_make_an_alarm_certain():
    truth = [2] * 20 + [0] * 20
    (block,) = to_blocks([predicted(truth, np.eye(3)[truth] * 5)])
    rare = score(block).of("covid19").predictive[0]
    assert rare.ppv.value == 1.0
    assert rare.ppv.low < 0.2


def test_reliability_and_abstention_by_hand():
    logits = np.log(np.array([[0.75, 0.15, 0.1]] * 20 + [[0.55, 0.35, 0.1]] * 20))
    truth = [0] * 10 + [1] * 10 + [0] * 20
    found = score(to_blocks([predicted(truth, logits, threshold=[0.6] * 40)])[0])
    bins = {one.low: one for one in found.calibration.bins if one.pictures}
    assert set(bins) == {0.5, 0.7}
    assert (bins[0.7].confidence, bins[0.7].accuracy, bins[0.7].pictures) == (0.75, 0.5, 20)
    assert found.calibration.error.value == pytest.approx((0.25 + 0.45) / 2)
    assert found.abstention.coverage.value == 0.5
    assert found.abstention.answered.value == 0.5
    assert found.abstention.declined.value == 1.0
    assert found.abstention.confident_wrong.value == 0.25


def test_an_untypical_picture_is_not_answered():
    part = predicted([0, 0], [[9, 0, 0]] * 2, typicality=[0.5, 1.5])
    assert to_blocks([part])[0].answered.tolist() == [True, False]


@pytest.mark.parametrize("seed", range(3))
def test_intervals_of_a_network_that_is_right_by_chance_cover_chance(seed):
    found = figures([guesses(120, seed)])
    main = found.main.score
    for estimate, chance in ((main.macro_recall, 1 / 3), (main.accuracy, 1 / 3), *((c.auc, 0.5) for c in main.classes)):
        assert estimate.low < chance < estimate.high
    assert use_of(main.of("covid19").auc) == "not shown to be better than a coin"


def test_patients_with_many_pictures_widen_the_interval():
    many = [f"p{i // 10}" for i in range(120)]
    truth = np.repeat(np.random.default_rng(0).integers(0, 3, 12), 10)
    logits = np.repeat(np.random.default_rng(1).normal(0, 1, (12, 3)), 10, axis=0)
    wide, narrow = (figures([predicted(truth, logits, **people)]).main.score.accuracy for people in ({"people": many}, {}))
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_groups_of_too_few_patients_say_nothing():
    views = ["PA"] * 80 + ["AP"] * 9
    rows = {row.name: row for row in figures([skilled(89, views=views)]).groups if row.by == "view"}
    assert rows["PA"].accuracy is not None
    assert rows["AP"].patients == 9
    assert rows["AP"].accuracy is None
    assert rows["AP"].auc is None


def test_ages_go_into_bands_and_unknown_ones_stay_apart():
    part = skilled(60)
    pictures = [msgspec.structs.replace(p, age=a) for p, a in zip(part.pictures, [None, 17, 18, 74, 75, 300] * 10, strict=True)]
    rows = {row.name: row.pictures for row in figures([msgspec.structs.replace(part, pictures=pictures)]).groups if row.by == "age"}
    assert rows == {"under 18": 10, "18 to 39": 10, "60 to 74": 10, "75 and older": 10, "not known": 20}


def test_a_control_stands_beside_the_real_score_of_the_same_pictures():
    whole = skilled(90, strength=3)
    kept = [i for i in range(90) if i % 3]
    rng = np.random.default_rng(0)
    blind = msgspec.structs.replace(
        whole,
        condition="lungs_out",
        pictures=[whole.pictures[i] for i in kept],
        logits=rng.normal(0, 1, (60, 3)).tolist(),
        **{name: [getattr(whole, name)[i] for i in kept] for name in ("fold", "temperature", "threshold")},
    )
    (row,) = figures([whole, blind]).controls
    right = [np.argmax(whole.logits[i]) == whole.truth()[i] for i in kept]
    assert (row.condition, row.pictures, row.whole_accuracy.value) == ("lungs_out", 60, pytest.approx(np.mean(right)))
    assert row.auc.low < 0.5 < row.auc.high < row.whole_auc.value
    assert verdict(row.auc) != verdict(row.whole_auc)


def test_what_the_source_gives_away_and_what_it_does_not():
    part = skilled(120)
    sources = ["b" if t == 2 or i % 4 == 0 else "a" for i, t in enumerate(part.truth())]
    pictures = [msgspec.structs.replace(p, source=s) for p, s in zip(part.pictures, sources, strict=True)]
    found = figures([msgspec.structs.replace(part, pictures=pictures)])
    away = {row.fact: row.auc.value for row in found.giveaways}
    truth, b = part.truth() == 2, np.array(sources) == "b"
    assert away["source"] == pytest.approx(auc(truth, b.astype(float)))
    covid = [row for row in found.same_source if row.name == "covid19"]
    assert [row.source for row in covid] == ["b"]
    assert covid[0].auc.value == pytest.approx(auc(truth[b], to_blocks([part])[0].chances[b, 2]))
    assert "proves nothing" in warnings(found)[0]


def test_elsewhere_is_apart_and_strangers_are_counted():
    away = guesses(40, protocol="external")
    strangers = predicted(
        ["other"] * 20,
        [[5, 0, 0]] * 12 + [[0.1, 0, 0]] * 8,
        protocol="external: strange",
        threshold=[0.9] * 20,
        datasets=["x"] * 20,
    )
    found = figures([skilled(60), away, strangers])
    assert found.main.score.pictures == 60
    assert [row.dataset for row in found.elsewhere] == ["set", "x"]
    assert found.elsewhere[1].strangers_answered.value == pytest.approx(12 / 20)
    assert found.elsewhere[1].accuracy is None


def test_another_place_is_shown_though_only_float_was_run_there():
    found = figures([skilled(60), guesses(40, protocol="leave-one-source-out", precision="float32")])
    assert (found.main.precision, [row.pictures for row in found.elsewhere]) == ("int8", [40])


def test_networks_are_compared_in_pairs_on_the_same_pictures():
    ours, other = skilled(90, strength=3), guesses(90, seed=1, network="p3", precision="float32")
    other = msgspec.structs.replace(other, pictures=ours.pictures)
    found = figures([ours, other])
    (row,) = found.differences
    gap = np.mean(np.argmax(ours.logits, 1) == ours.truth()) - np.mean(np.argmax(other.logits, 1) == ours.truth())
    assert row.difference.value == pytest.approx(gap)
    assert row.difference.low > 0
    assert [named.network for named in found.networks] == ["net", "p3"]
    fewer = msgspec.structs.replace(guesses(60, seed=1, network="p3"), pictures=ours.pictures[:60])
    captions = [charts._networks(part.networks, part.concern).title for part in (found, figures([ours, fewer]))]
    assert captions[0] == "Networks side by side, on the same pictures"
    assert captions[1].startswith("Networks side by side, not all on the same pictures")


def test_int8_against_float_and_ungrouped_against_grouped():
    small = skilled(60)
    logits = np.array(small.logits)
    logits[:3] = logits[:3][:, [1, 2, 0]]
    exact = msgspec.structs.replace(small, precision="float32", logits=logits.tolist())
    loose = skilled(60, strength=9, grouped=False)
    found = figures([exact, small, loose])
    assert found.main.precision == "int8"
    assert found.main.grouped
    (same,) = found.agreements
    assert same.same_answer.value == pytest.approx(np.mean(logits.argmax(1) == np.argmax(small.logits, 1)))
    (row,) = found.inflated
    assert row.ungrouped.value > row.grouped.value == pytest.approx(found.main.score.accuracy.value)


def test_folds_sum_to_the_whole_and_have_the_five_metrics():
    part = skilled(60, fold=[i % 4 for i in range(60)])
    found = figures([part])
    assert np.array_equal(sum(np.array(row.confusion) for row in found.folds), np.array(found.main.score.confusion))
    row = found.folds[0]
    table = np.array(row.confusion)
    assert row.accuracy == pytest.approx(accuracy(table), abs=1e-4)
    assert row.sensitivity == pytest.approx(table[2, 2] / table[2].sum(), abs=1e-4)
    assert row.precision == pytest.approx(table[2, 2] / table[:, 2].sum(), abs=1e-4)


@pytest.mark.parametrize(
    ("classes", "concern"),
    [
        (CLASSES, "covid19"),
        (["normal", "covid19"], "covid19"),
        (["non_covid19", "covid19"], "covid19"),
        (["normal", "tuberculosis"], "tuberculosis"),
    ],
)
def test_the_concern_is_covid_where_there_is_one(classes, concern):
    assert concern_of(classes) == concern


def test_plain_words_count_to_a_hundred():
    line = plain_words(figures([skilled(90, threshold=[0.7] * 90)]))[0]
    answered, right, wrong, handed = (
        int(n) for n in re.findall(r"answers (\d+): (\d+) rightly and (\d+) wrongly.*other (\d+)", line)[0]
    )
    assert right + wrong == answered
    assert answered + handed == 100


def test_printed_figures_of_p5_are_corrected_from_its_matrix():
    fused = next(row for row in PRINTED if row.network == "p5-concatenated")
    assert fused.corrected == {"accuracy": 0.9278, "sensitivity": 0.9348, "specificity": 0.9254, "PPV": 0.8113, "NPV": 0.9764}
    assert {row.network for row in PRINTED} >= {
        "p1-resnet50",
        "p1-alexnet",
        "p1-vgg19",
        "p2-resnet50",
        "p3",
        "p4-covidnet",
        "p4-fusion",
    }


def test_every_printed_row_was_run_or_says_what_it_needs():
    rows = against(figures([skilled(60, network="p3")]).as_published)
    assert len(rows) == len(PRINTED)
    assert all(row.got is not None or row.why.startswith("not run here: needs ") for row in rows)
    assert [row.printed.source for row in rows if row.got] == [row.source for row in PRINTED if row.network == "p3"]


def test_a_printed_row_is_compared_with_the_run_of_its_own_protocol():
    nested = skilled(60, network="p3", protocol="nested5; epochs 2 instead of 25")
    rows = against(figures([skilled(60, network="p3", protocol="p3"), nested]).as_published)
    assert [row.protocol for row in rows if row.got] == ["p3", "nested5; epochs 2 instead of 25"]
    (alone,) = [[row.protocol for row in against(figures([nested]).as_published) if row.got]]
    assert alone == ["nested5; epochs 2 instead of 25"] * 2


def test_what_a_paper_said_is_compared_with_floats():
    exact, rounded = skilled(60, network="p3", precision="float32"), skilled(60, strength=0.1, network="p3", precision="int8")
    found = figures([rounded, exact])
    (named,) = found.as_published
    assert named.precision == "float32"
    assert [row.precision for row in found.networks] == ["int8"]
    assert {row.got for row in against(found.as_published) if row.got} == {named.score.accuracy}


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ([], "There are no predictions of whole"),
        ([skilled(9), msgspec.structs.replace(skilled(9), network="net")], "hold a picture twice"),
        ([skilled(9), skilled(9, classes=["a", "b", "c"])], "different classes"),
        ([predicted(["other"], [[1, 0, 0]])], "There are no predictions of whole"),
    ],
)
def test_what_cannot_be_reported_on(parts, sentence):
    with pytest.raises(ReportError, match=sentence):
        figures(parts)


def estimates(value):
    """Return all estimates in a tree of JSON values."""
    if isinstance(value, dict):
        own = [value] if {"value", "low", "high"} <= set(value) else []
        return own + [found for part in value.values() for found in estimates(part)]
    return [found for part in value for found in estimates(part)] if isinstance(value, list) else []


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A page with all parts, of a tiny set, by the command line."""
    folder = tmp_path_factory.mktemp("report")
    whole = skilled(90, sources=["a", "b"] * 45, fold=[i % 3 for i in range(90)])
    blind = msgspec.structs.replace(guesses(90), condition="centre_out", pictures=whole.pictures)
    other = msgspec.structs.replace(guesses(90, network="p3", protocol="hold-out"), pictures=whole.pictures)
    evil = msgspec.structs.replace(whole, network="<script>alert(1)</script>", protocol="evil")
    away = predicted(["normal"] * 20 + ["odd"] * 4, [[2, 0, 0]] * 24, protocol="external", datasets=["far"] * 24)
    write_predictions(folder / "first.json", [whole, blind, away])
    write_predictions(folder / "second.json", [other, evil])
    rows = [
        Epoch(epoch=i + 1, rate=1e-3, loss=1 / (i + 1), accuracy=0.4, val_loss=0.7, val_accuracy=0.5, seconds=1) for i in range(3)
    ]
    (folder / "history.json").write_bytes(msgspec.json.encode(rows))
    row = Row(
        name="50% zeros, int8",
        precision="int8",
        sparsity=0.5,
        zeros=0.45,
        bytes=12_345,
        compressed_bytes=6_789,
        accuracy=Interval(value=0.7, low=0.6, high=0.8, pictures=9, patients=8),
        milliseconds=1.25,
        ratio_to_p3=0.5,
        peak_memory=1,
    )
    write_table(folder / "forms.json", Table(network="net", trained=True, runtime="it 1.0", p3_milliseconds=2.5, rows=[row]))
    out = folder / "out"
    arguments = ["evaluate", folder / "first.json", folder / "second.json", "--out", out, "--history", folder / "history.json"]
    arguments += ["--compression", folder / "forms.json"]
    result = CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "net: 90 pictures of 90 patients, accuracy " in result.output
    return out


def test_the_page_says_what_figures_json_says(written):
    text = html.unescape((written / "report.html").read_text())
    numbers = json.loads((written / "figures.json").read_text())
    found = numbers["figures"]
    for row in found["main"]["score"]["classes"]:
        if row["name"] == "normal":
            del row["predictive"]  # an alarm of "normal" is nobody's question
    for row in found["networks"]:
        for part in ("classes", "calibration", "abstention"):
            row["score"].pop(part)
    shown = [found[part] for part in ("main", "controls", "elsewhere", "same_source", "giveaways", "groups", "networks")]
    all_of_them = estimates(shown)
    assert len(all_of_them) > 40
    for one in all_of_them:
        assert span(Span(value=one["value"], low=one["low"], high=one["high"])) in text
    for row in found["differences"]:
        assert f"{100 * row['difference']['value']:+.1f} (" in text
    for line in found["main"]["score"]["confusion"]:
        assert " ".join(str(count) for count in line) in text
    assert "12,345" in text
    assert "1.25" in text
    assert "P3 own CNN" in text


def test_the_page_stands_alone_and_escapes_names(written):
    text = (written / "report.html").read_text()
    addresses = re.findall(r"(?:src|srcset|href)=\"([^\"#]{1,30})", text)
    assert addresses
    assert all(address.startswith("data:image/png;base64,") for address in addresses)
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert all(re.search(r'alt="[^"]{20,}"', tag) for tag in re.findall(r"<img [^>]*>", text))
    assert {"roc.png", "roc-dark.png", "reliability.png", "confusion.png", "networks.png", "learning-0.png"} <= {
        file.name for file in written.iterdir()
    }


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Two pages of the same predictions with nothing beside them."""
    folder = tmp_path_factory.mktemp("bare")
    write_predictions(folder / "p.json", [skilled(40)])
    for name in ("first", "second"):
        result = CliRunner().invoke(main, ["evaluate", str(folder / "p.json"), "--out", str(folder / "out")])
        assert result.exit_code == 0, result.output
        (folder / "out").rename(folder / name)
    return folder


def test_missing_parts_are_left_out_with_a_sentence(bare):
    text = (bare / "first/report.html").read_text()
    for sentence in (
        "No history of a training was given.",
        "No table of sizes and speeds was given.",
        "No sample pictures were given.",
        "No other hospital was tried",
        "No control without lungs was run",
        "No bundle and no card were given",
        "Nobody has written down what it must not be used for",
    ):
        assert sentence in text
    assert not (bare / "first/networks.png").exists()


def test_the_same_predictions_give_the_same_page(bare):
    files = sorted((bare / "first").iterdir())
    assert len(files) > 5
    for file in files:
        assert file.read_bytes() == (bare / "second" / file.name).read_bytes(), file.name


def test_pictures_of_one_class_give_a_page_without_curves(tmp_path):
    write_predictions(tmp_path / "p.json", [predicted([2] * 12, np.eye(3)[[2] * 9 + [0] * 3])])
    result = CliRunner().invoke(main, ["evaluate", str(tmp_path / "p.json"), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "out/roc.png").exists()
    assert "too few to say" in (tmp_path / "out/report.html").read_text()


@pytest.mark.parametrize(
    ("option", "content", "part"),
    [
        ("--history", "{", "is not what `cxr-export train` writes"),
        ("--compression", '[{"precision": "int8"}]', "is not what `cxr-export compress` writes"),
        ("--samples", None, "cannot be read"),
    ],
)
def test_a_part_of_another_kind_is_one_sentence(tmp_path, option, content, part):
    write_predictions(tmp_path / "p.json", [skilled(12)])
    if content is not None:
        (tmp_path / "part.json").write_text(content)
    arguments = ["evaluate", str(tmp_path / "p.json"), "--out", str(tmp_path / "out"), option, str(tmp_path / "part.json")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    (sentence,) = result.stderr.splitlines()
    assert part in sentence
    assert not (tmp_path / "out").exists()


def test_figures_of_patients_on_both_sides_are_called_inflated(tmp_path):
    write_predictions(tmp_path / "p.json", [skilled(40, grouped=False)])
    CliRunner().invoke(main, ["evaluate", str(tmp_path / "p.json"), "--out", str(tmp_path / "out")])
    text = (tmp_path / "out/report.html").read_text()
    assert "These figures are inflated." in text
    assert "had not seen" not in text


def test_samples_are_shown_with_their_outcome(tmp_path):
    from export.report.inputs import HeatMap
    from export.report.pictures import overlay, png, show

    film = png(np.full((32, 32), 100, np.uint8))
    heat = HeatMap(network="net", method="class activation map", values=[[0.0, -5.0], [0.0, 2.0]])
    sample = SamplePicture(
        picture=film, dataset="set", label="normal", answer="covid19", abstained=False, probabilities={"covid19": 0.9}, heat=[heat]
    )
    assert show(sample, 0).outcome == "wrong"
    assert show(msgspec.structs.replace(sample, abstained=True), 0).outcome == "not sure"
    import io

    from PIL import Image

    mixed = np.asarray(Image.open(io.BytesIO(overlay(film, heat)))).astype(int)
    assert mixed[0, 0].tolist() == mixed[0, -1].tolist() == [100, 100, 100], "no heat, and heat against the answer, show nothing"
    assert mixed[-1, -1, 0] > 180 > 60 > mixed[-1, -1, 2]
