"""The words around a model: licence of its weights, intended use, and the pages that are written from its report."""

from __future__ import annotations

from typing import Any

INTENDED_USE = (
    "Research and teaching aid for adult frontal chest radiographs. Not a medical device; never the only basis of a decision. "
    "It says normal, pneumonia or covid19, or that it is not sure."
)

TRAINED_ON = (
    "NIH ChestX-ray8 normals and pneumonias, ieee8023 covid19, in the choice of DarkCovidNet (without the test patients)",
    "ieee8023 covid-chestxray-dataset: covid19, other pneumonias, normals (without the test patients)",
    "kermany: children; 900 pictures whose masks teach what lungs look like, their labels are not used",
    "ImageNet, by way of the published weights of MobileNetV2 0.35 (the part of the network that is not trained further)",
)

LICENCE = """Licence of the weights in this folder

The weights (model.tflite) may be used for research and teaching only, and not for profit. They are not a medical device, are not
cleared by any authority, and must never be the only basis of a decision about a patient. They come without any warranty.

They were computed from the pictures below. None of these pictures is in this folder; the golden inputs are drawn by a program.

- NIH ChestX-ray8, by way of the picture selection of DarkCovidNet. Free to use with credit:
  X. Wang, Y. Peng, L. Lu, Z. Lu, M. Bagheri, R. M. Summers, "ChestX-ray8: Hospital-scale chest X-ray database and benchmarks on
  weakly-supervised classification and localization of common thorax diseases", CVPR 2017; NIH Clinical Center.
  T. Ozturk et al., "Automated detection of COVID-19 cases using deep neural networks with X-ray images", 2020.
- ieee8023 covid-chestxray-dataset: each picture has its own licence, many of them for non-commercial use only:
  J. P. Cohen, P. Morrison, L. Dao, "COVID-19 image data collection", 2020.
- Kermany et al., children's chest X-rays (their lung masks only), CC BY 4.0, changed (cropped, resized, made into weights):
  D. S. Kermany, K. Zhang, M. Goldbaum, "Labeled optical coherence tomography (OCT) and chest X-ray images for classification",
  Mendeley Data, 2018; https://creativecommons.org/licenses/by/4.0/
- The first part of the network is MobileNetV2 0.35 with the weights that Keras publishes (Apache-2.0), learned from ImageNet:
  M. Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", CVPR 2018; F. Chollet et al., Keras.

The program code of the project has another licence (Apache-2.0).
"""

_GENERATED = "<!-- Written by `cxr-export` from report.json. Do not edit: change export/card.py and run `cxr-export pages`. -->"


def headline(report: dict[str, Any]) -> dict[str, Any]:
    """Return the figures that travel in the manifest."""
    cross, shipped = report["cross_validation"], report["shipped"]
    return {
        "darkcovid_5_fold_accuracy": cross["darkcovid"]["accuracy"],
        "darkcovid_5_fold_macro_recall": cross["darkcovid"]["macro_recall"],
        "darkcovid_5_fold_linear_accuracy": cross["darkcovid_linear"]["accuracy"],
        "ieee8023_5_fold_covid19_against_rest_auc": cross["ieee8023_covid19_against_rest"]["auc"],
        "expected_calibration_error": cross["all_abstention"]["expected_calibration_error"],
        "conformal_coverage": cross["conformal_coverage"]["share"],
        "unseen_source_confident_wrong": {name: row["confident_wrong"] for name, row in report["left_out"].items()},
        "shipped_test_accuracy": shipped["test"]["accuracy"],
        "shipped_declined_share": shipped["abstention"]["declined_share"],
    }


def model_card(report: dict[str, Any]) -> str:
    """Return MODEL_CARD.md."""
    shipped, side = report["shipped"], report["preprocessing_side"]
    return "\n".join(
        [
            _GENERATED,
            "# Model card: chest",
            "",
            INTENDED_USE,
            "",
            "Out of scope: children, lateral views, computed tomography, a screen or film photographed with a telephone, any use",
            "without a person who can read a radiograph, and any diagnosis of COVID-19 without a laboratory test.",
            "",
            "A quality gate stands before the answer: what is no whole frontal chest radiograph, the right way up and readable, is",
            "refused with a reason, and so is a patient whom a DICOM header calls younger than 18. A lateral view is known by its",
            "DICOM header alone. Its figures: `gate.json` and docs/reference/quality.md.",
            "",
            f"- Input: {side} x {side} gray, preprocessing version {report['preprocessing']}.",
            f"- Output: logits of {', '.join(report['classes'])}; a class activation map for each, only where it sees lung; and",
            "  traits by which a device tells pictures of a kind that the network has not learned from.",
            f"- {shipped['parameters']:,} parameters, {shipped['bytes']:,} bytes, int8.",
            f"- Temperature {shipped['temperature']}. It answers when exactly one class has a probability of at least",
            f"  {shipped['candidate']:.3f} (conformal sets, miscoverage {report['miscoverage']}) and the picture is more",
            f"  typical than the strangest {_percent(report['unfamiliar_below'])} of the known ones; otherwise it is not sure.",
            "",
            "## Training data",
            "",
            *(f"- {line}" for line in TRAINED_ON),
            "",
            *_counts(report),
            "",
            "Licences of these pictures, and what they mean for the weights: `LICENSE`.",
            "",
            "## What it scores",
            "",
            *_scores(report),
            "",
            "## What it does not do",
            "",
            *_failures(report),
            "",
        ]
    )


def reference_page(report: dict[str, Any]) -> str:
    """Return docs/reference/network.md: the card's figures, and those by fold."""
    cross, recipe = report["cross_validation"], report["recipe"]
    rows = [f"| {row['fold']} | {row['pictures']} | {row['accuracy']:.3f} | {row['linear']:.3f} |" for row in cross["folds"]]
    return "\n".join(
        [
            _GENERATED,
            "# The network",
            "",
            "The first thirteen blocks of MobileNetV2 0.35 with ImageNet's weights, for one gray channel, batch normalization",
            "folded in, not trained further. Features of three depths (blocks 10, 12 and 13) side by side are 12 x 12 x 528",
            "values, and on them two 1x1 convolutions: a lung map and a map of signs for each class. A sign counts only where",
            "there is lung, and half between the lungs (the maps are multiplied by the lung map's sigmoid); the mean of a map is",
            "the logit of its class. The maps are the second output, the means of the sixth block's depthwise features the third.",
            "",
            f"Training: two logistic regressions on {recipe['views']} views of each picture (as it is; turned, shifted, brighter;",
            "with the border of another picture), one of lung masks where they are known, one of classes. Pictures without a",
            "middle are to give equal probabilities; logits that differ between int8 and float, and mean logits of a class that",
            "differ between its sources, are paid for. Then int8 quantization; the input is exactly pixel - 128. Temperature and",
            "thresholds come from training patients left out in turn. Pictures of other diseases teach only that they are not",
            "covid19; every class weighs alike.",
            "",
            "Folds 0 and 1 were looked at while the network and its training were being chosen, and are optimistic to that extent;",
            "figures without them stand beside. How it was chosen: [model development](../model-development.md).",
            f"The shipped model is that of fold {report['shipped']['fold']}.",
            "",
            "Make it again: `cxr-export chest --data DIR --out edge/models/chest` (15 minutes on two cores), then its",
            "[quality gate](quality.md): `cxr-export gate edge/models/chest --data DIR` (7 minutes). It is the same to the byte",
            "on the same kind of processor alone: float arithmetic differs from one to another in its last digits, and what",
            "eight bits keep of it differs more ([how much](../adr/0012-golden-scores-of-each-runtime.md#a-second-training)).",
            "",
            "## Data",
            "",
            *_counts(report),
            "",
            "## By fold (darkcovid, three classes, accuracy)",
            "",
            "| fold | pictures | network, int8 | linear model, 64x64 |",
            "|---|---|---|---|",
            *rows,
            "",
            "## All figures",
            "",
            *_scores(report),
            "",
            "## Controls and limits",
            "",
            *_failures(report),
            "",
        ]
    )


def readme_figures(report: dict[str, Any]) -> list[str]:
    """Return the lines of the README that say what the shipped network scores, on its own kind of pictures and elsewhere."""
    cross, shipped, left = report["cross_validation"], report["shipped"], report["left_out"]
    black = report["controls"]["black_centre_darkcovid"]["covid19_against_rest_auc"]
    rows = [
        ("darkcovid, three classes, accuracy, 5 folds by patient", cross["darkcovid"]["accuracy"]),
        ("the same, a linear model on 64x64 pixels", cross["darkcovid_linear"]["accuracy"]),
        ("the shipped file on its own unseen patients, accuracy", shipped["test"]["accuracy"]),
        ("covid19 against all else where both come from one kind of source, AUC, 5 folds", _same(cross)["auc"]),
        ("covid19 against the rest in darkcovid with the middle 61% of each picture black, AUC", black),
        *(
            (f"pictures of {_source(name)}, by networks that never saw that source: share with a confident wrong answer, mean", row)
            for name, row in ((name, row["confident_wrong"]) for name, row in left.items())
        ),
    ]
    return [
        "What the network scores on patients that it has not seen (int8 file, 95% intervals over patients), and on hospitals",
        "that it has not seen, where **it cannot be relied on** and mostly says that this kind of image is new to it:",
        "",
        *_table(rows),
        "",
        "More, and how it was made: [model card](edge/models/chest/MODEL_CARD.md), [the network](docs/reference/network.md).",
    ]


def _same(cross: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = cross["ieee8023_covid19_against_rest"]
    return row


def _source(name: str) -> str:
    return "children (kermany)" if name == "kermany" else name


def _scores(report: dict[str, Any]) -> list[str]:
    cross, shipped = report["cross_validation"], report["shipped"]
    dark, linear = cross["darkcovid"], cross["darkcovid_linear"]
    sure, agree, other = cross["all_abstention"], cross["float_against_int8"], shipped["other_runtime"]
    later = cross["darkcovid_without_development_folds"]
    recall = ", ".join(f"{name} {value:.2f}" for name, value in dark["recall"].items())
    rows = [
        ("darkcovid, 5 folds: accuracy", dark["accuracy"]),
        ("the same, float network", cross["float_darkcovid"]),
        ("the same, without the folds that the network was designed on", later),
        ("the same, linear model on 64x64 pixels", linear["accuracy"]),
        ("network minus linear model, same pictures", cross["darkcovid_gain_over_linear"]),
        ("darkcovid, 5 folds: mean recall of the classes", dark["macro_recall"]),
        ("the same, linear model", linear["macro_recall"]),
        ("ieee8023 pictures, 5 folds: covid19 against all else, AUC", _same(cross)["auc"]),
        (
            "the same, without the folds that the network was designed on",
            cross["ieee8023_covid19_against_rest_without_development_folds"],
        ),
        ("the same, linear model", cross["ieee8023_linear"]["auc"]),
        ("shipped model, its own unseen patients, both sets: accuracy", shipped["test"]["accuracy"]),
        (f"the same, in {other['name']}", other["accuracy"]),
        ("5 folds, both sets, answered pictures only: accuracy", sure["accuracy"]["answered"]),
        ("5 folds, both sets, declined pictures: accuracy had it answered", sure["accuracy"]["declined"]),
        ("5 folds, both sets: expected calibration error, 10 bins", sure["expected_calibration_error"]),
        (
            f"5 folds, both sets: class inside the conformal set (aim {1 - report['miscoverage']:.2f})",
            cross["conformal_coverage"]["share"],
        ),
        (f"5 folds, both sets: looks familiar (aim {1 - report['unfamiliar_below']:.2f})", cross["familiar"]),
        ("share of the heat inside the lungs, pictures with masks", report["controls"]["heat_in_lungs"]),
    ]
    return [
        "All of the int8 file, through the device's own code, on patients that the model has not seen. In brackets: 95% interval,",
        "bootstrapped over patients.",
        "",
        *_table(rows),
        "",
        f"Recall by class (5 folds, darkcovid): {recall}.",
        f"It declines {_percent(sure['declined_share'])} of the pictures of both sets.",
        f"Lungs are {_percent(report['controls']['lungs_share_of_picture'])} of the area of pictures with masks.",
        f"Float and int8 name the same class for {_percent(agree['same_class'])} of {agree['pictures']} pictures.",
        f"In {other['name']} (32-bit ARM), which rounds otherwise than LiteRT, in which all else was measured, the shipped model",
        f"names the same class for {_percent(other['same_class'])} of its {other['pictures']} unseen pictures, and gives the same",
        f"answer, or none in either, for {_percent(other['same_answer']['value'])}.",
    ]


def _failures(report: dict[str, Any]) -> list[str]:
    control, left = report["controls"], report["left_out"]
    black, whole = control["black_centre_darkcovid"], report["cross_validation"]["darkcovid"]
    rows = [
        ("darkcovid, middle 61% black: covid19 against the rest, AUC", black["covid19_against_rest_auc"]),
        ("darkcovid, middle 61% gray: covid19 against the rest, AUC", control["gray_centre_darkcovid"]["covid19_against_rest_auc"]),
        ("darkcovid, whole picture: covid19 against the rest, AUC", whole["covid19_against_rest_auc"]),
        ("darkcovid, middle 61% black: accuracy", black["accuracy"]),
        ("ieee8023, middle 61% black: covid19 against all else, AUC", control["black_centre_ieee8023"]["auc"]),
        ("ieee8023 pictures with masks: covid19 against all else, AUC", control["lungs_there_ieee8023"]["auc"]),
        ("the same, lungs blacked out along their masks", control["lungs_black_ieee8023"]["auc"]),
    ]
    for name, row in left.items():
        each = row["confident_wrong_by_model"]
        which = f"{_source(name)}, by {len(each)} networks that never saw that source"
        rows += [
            (f"{which}: share with a confident wrong answer, mean ({min(each):.3f} to {max(each):.3f})", row["confident_wrong"]),
            ("the same: share answered at all", row["answered"]),
            ("the same networks on held-out pictures of the sources that they know: share answered", row["seen"]),
        ]
    return [
        "The covid19 pictures and the others of darkcovid come from different sources, and a network learns the source as easily",
        "as the disease. Figures of pictures with hardly any lung left, and of sources that it has not seen, say how much:",
        "",
        *_table(rows),
        "",
        "Were they to answer always, the networks of the folds would call "
        f"{_percent(left['kermany']['called_covid19_share'])} of the",
        "children's pictures covid19; none of them is.",
        "The sources left out were looked at while the measure of what is familiar was being chosen.",
        f"A classifier that sees only the shape of a file gets a mean recall of {control['shape_only_macro_recall']:.3f} "
        f"(chance: {control['shape_only_chance']:.3f}), because the shape is cropped away; the shape itself would give",
        f"covid19 away with an AUC of {control['file_shape_covid19_auc_in_darkcovid']:.3f}.",
    ]


def _counts(report: dict[str, Any]) -> list[str]:
    labels = [name for name in next(iter(report["data"].values())) if name != "patients"]
    return [
        f"| set | {' | '.join(labels)} | patients |",
        "|---" * (len(labels) + 2) + "|",
        *(f"| {name} | {' | '.join(str(row[c]) for c in labels)} | {row['patients']} |" for name, row in report["data"].items()),
    ]


def _table(rows: list[tuple[str, dict[str, Any] | None]]) -> list[str]:
    return ["| what | value | pictures | patients |", "|---|---|---|---|", *(_row(name, value) for name, value in rows if value)]


def _row(name: str, value: dict[str, Any]) -> str:
    span = f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"
    return f"| {name} | {span} | {value['pictures']} | {value['patients']} |"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"
