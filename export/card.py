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
    "kermany: children, normal and pneumonia; pretraining only (four fifths of the patients)",
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
- Kermany et al., children's chest X-rays (pretraining), CC BY 4.0, changed (cropped, resized, made into weights):
  D. S. Kermany, K. Zhang, M. Goldbaum, "Labeled optical coherence tomography (OCT) and chest X-ray images for classification",
  Mendeley Data, 2018; https://creativecommons.org/licenses/by/4.0/

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
        "ieee8023_5_fold_covid19_against_pneumonia_auc": cross["ieee8023_covid19_against_pneumonia"]["auc"],
        "unseen_source_covid19_against_pneumonia_auc": report["leave_source_out"]["ieee8023_covid19_against_pneumonia"]["auc"],
        "unseen_children_pneumonia_against_normal_auc": report["leave_source_out"]["kermany_pneumonia_against_normal"]["auc"],
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
            f"- Input: {side} x {side} gray, preprocessing version {report['preprocessing']}.",
            f"- Output: logits of {', '.join(report['classes'])}, and a class activation map for each.",
            f"- {shipped['parameters']:,} parameters, {shipped['bytes']:,} bytes, int8; "
            f"{_percent(shipped['sparsity_of_1x1_convolutions'])} of the weights of its 1x1 convolutions are zero.",
            f"- Temperature {shipped['temperature']}; it is not sure below a highest probability of {shipped['threshold']}.",
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
    phases = ", then ".join(f"{phase['epochs']} epochs at 1/{phase['shrink']} of the side" for phase in recipe["phases"])
    stem = ", ".join(str(channels) for channels in recipe["plan"]["stem"])
    blocks = ", ".join(f"{channels}/{stride}" for channels, stride in recipe["plan"]["blocks"])
    return "\n".join(
        [
            _GENERATED,
            "# The network",
            "",
            f"Stem of 3x3 convolutions of stride 2 ({stem} channels); residual blocks of two separable convolutions each",
            f"(channels/stride): {blocks};",
            "a 1x1 convolution to one map a class; the mean of a map is the logit of its class. The maps are the second output.",
            "",
            f"Training: {recipe['pretrain']['epochs']} epochs on kermany (normal, pneumonia), one pretraining for all folds, which",
            f"share no patient with it; {phases}, then {recipe['prune']['epochs']} epochs of",
            f"magnitude pruning to {_percent(recipe['sparsity'])} at the full size,",
            "then batch normalization statistics on undistorted training pictures, then int8 quantization. The input is exactly",
            "pixel - 128. Class biases, temperature and threshold come from validation patients.",
            "Fold 0 was looked at while the network and its training were being chosen, and is optimistic to that extent. The",
            "others were looked at twice: a first run without the statistics and the biases scored 0.737 over the 5 folds, below",
            "the linear model's 0.748, which is why both were added.",
            f"The shipped model is that of fold {report['shipped']['fold']}.",
            "",
            "Make it again: `cxr-export chest --data DIR --out edge/models/chest` "
            f"({report['seconds'] / 60:.0f} minutes when the shipped one was made).",
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
    cross, shipped, left = report["cross_validation"], report["shipped"], report["leave_source_out"]
    black = report["controls"]["black_centre_darkcovid"]["covid19_against_rest_auc"]
    covid, children = "ieee8023_covid19_against_pneumonia", "kermany_pneumonia_against_normal"
    rows = [
        ("darkcovid, three classes, accuracy, 5 folds by patient", cross["darkcovid"]["accuracy"]),
        ("the same, a linear model on 64x64 pixels", cross["darkcovid_linear"]["accuracy"]),
        ("the shipped file on its own unseen patients, accuracy", shipped["test"]["accuracy"]),
        ("covid19 against pneumonia where both come from one kind of source, AUC, 5 folds", cross[covid]["auc"]),
        ("the same, by a network that never saw that source", left[covid]["auc"]),
        ("pneumonia against normal at a children's hospital, by a network that never saw it, AUC", left[children]["auc"]),
        ("covid19 against the rest in darkcovid with the middle 61% of each picture black, AUC", black),
    ]
    return [
        "What the network scores on patients that it has not seen (int8 file, 95% intervals over patients), and on hospitals",
        "that it has not seen, where **it cannot be relied on**:",
        "",
        *_table(rows),
        "",
        "More, and how it was made: [model card](edge/models/chest/MODEL_CARD.md), [the network](docs/reference/network.md).",
    ]


def _scores(report: dict[str, Any]) -> list[str]:
    cross, shipped = report["cross_validation"], report["shipped"]
    dark, linear = cross["darkcovid"], cross["darkcovid_linear"]
    sure, agree = cross["darkcovid_abstention"], shipped["float_against_int8"]
    recall = ", ".join(f"{name} {value:.2f}" for name, value in dark["recall"].items())
    rows = [
        ("darkcovid, 5 folds: accuracy", dark["accuracy"]),
        ("the same, linear model on 64x64 pixels", linear["accuracy"]),
        ("network minus linear model, same pictures", cross["darkcovid_gain_over_linear"]),
        ("accuracy without the fold that the network was designed on", cross["darkcovid_without_development_fold"]["accuracy"]),
        ("the same, network minus linear model", cross["darkcovid_gain_over_linear_without_development_fold"]),
        ("darkcovid, 5 folds: mean recall of the classes", dark["macro_recall"]),
        ("the same, linear model", linear["macro_recall"]),
        ("ieee8023 pictures, 5 folds: covid19 against pneumonia, AUC", cross["ieee8023_covid19_against_pneumonia"]["auc"]),
        ("the same, linear model", cross["ieee8023_linear"]["auc"]),
        ("shipped model, its own unseen patients, both sets: accuracy", shipped["test"]["accuracy"]),
        ("5 folds, answered pictures only: accuracy", sure["accuracy"]["answered"]),
        ("5 folds, declined pictures: accuracy had it answered", sure["accuracy"]["declined"]),
    ]
    return [
        "All of the int8 file, through the device's own code, on patients that the model has not seen. In brackets: 95% interval,",
        "bootstrapped over patients.",
        "",
        *_table(rows),
        "",
        f"Recall by class (5 folds, darkcovid): {recall}. It declines {_percent(sure['declined_share'])} of the pictures there.",
        f"Expected calibration error there: {sure['expected_calibration_error']:.3f}. "
        f"Float and int8 name the same class for {_percent(agree['same_class'])} of {agree['pictures']} pictures.",
    ]


def _failures(report: dict[str, Any]) -> list[str]:
    control, left, children = report["controls"], report["leave_source_out"], report["kermany"]
    black, whole = control["black_centre_darkcovid"], report["cross_validation"]["darkcovid"]
    rows = [
        (
            "trained on darkcovid alone, on ieee8023: covid19 against pneumonia, AUC",
            left["ieee8023_covid19_against_pneumonia"]["auc"],
        ),
        ("the same: accuracy of three classes", left["ieee8023"]["accuracy"]),
        (
            "trained on darkcovid alone, on kermany (children): pneumonia against normal, AUC",
            left["kermany_pneumonia_against_normal"]["auc"],
        ),
        (
            "shipped model, kermany patients not in its pretraining: pneumonia against normal, AUC",
            children["pneumonia_against_normal"]["auc"],
        ),
        ("kermany pictures with masks: the same", children["with_masks"]["auc"]),
        ("kermany pictures with masks, lungs blacked out: the same", children["with_masks_lungs_black"]["auc"]),
        ("darkcovid, middle 61% black: accuracy", black["accuracy"]),
        ("darkcovid, middle 61% black: covid19 against the rest, AUC", black["covid19_against_rest_auc"]),
        ("darkcovid, whole picture: covid19 against the rest, AUC", whole["covid19_against_rest_auc"]),
        ("ieee8023, middle 61% black: covid19 against pneumonia, AUC", control["black_centre_ieee8023"]["auc"]),
    ]
    return [
        "The covid19 pictures and the others of darkcovid come from different sources, and a network learns the source as easily",
        "as the disease. Figures of hospitals that it has not seen, and of pictures with hardly any lung left, say how much:",
        "",
        *_table(rows),
        "",
        f"The shipped model calls {_percent(children['called_covid19_share'])} of the children's pictures covid19, the one of "
        f"darkcovid alone {_percent(left['kermany_called_covid19_share'])}; none of them is.",
        f"A classifier that sees only the shape of a file gets a mean recall of {control['shape_only_macro_recall']:.3f} "
        f"(chance: {control['shape_only_chance']:.3f}), because the shape is cropped away; the shape itself would give",
        f"covid19 away with an AUC of {control['file_shape_covid19_auc_in_darkcovid']:.3f}.",
    ]


def _counts(report: dict[str, Any]) -> list[str]:
    classes = report["classes"]
    return [
        f"| set | {' | '.join(classes)} | patients |",
        "|---" * (len(classes) + 2) + "|",
        *(f"| {name} | {' | '.join(str(row[c]) for c in classes)} | {row['patients']} |" for name, row in report["data"].items()),
    ]


def _table(rows: list[tuple[str, dict[str, Any] | None]]) -> list[str]:
    return ["| what | value | pictures | patients |", "|---|---|---|---|", *(_row(name, value) for name, value in rows if value)]


def _row(name: str, value: dict[str, Any]) -> str:
    span = f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"
    return f"| {name} | {span} | {value['pictures']} | {value['patients']} |"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"
