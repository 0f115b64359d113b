"""The answer in plain words: sentences with natural frequencies, made from the figures and from nothing else."""

from __future__ import annotations

from export.metrics import Estimate
from export.report.figures import Figures
from export.report.score import Score
from export.report.subsets import Elsewhere
from export.report.words import CONDITIONS, class_name, of_hundred, place_name

_HARD = ("lungs_out", "centre_out", "border_only", "shape_only")
"""Controls, the most telling first."""


def plain_words(figures: Figures) -> list[str]:
    """Return what the network does with pictures like those it was tested on."""
    score, name = figures.main.score, class_name(figures.concern)
    return [line for line in (_answers(score), _found(score, figures.concern, name), _alarms(score, figures.concern, name)) if line]


def warnings(figures: Figures) -> list[str]:
    """Return why those sentences cannot be carried over to another hospital."""
    name = class_name(figures.concern)
    lines = [_giveaway(figures, name), _same_source(figures, name), _control(figures, name)]
    return [line for line in lines if line] + [_elsewhere(row, name) for row in figures.elsewhere]


def _answers(score: Score) -> str:
    sure = score.abstention
    if sure.coverage is None or sure.confident_wrong is None:
        return ""
    answered, wrong = of_hundred(sure.coverage.value), of_hundred(sure.confident_wrong.value)
    return (
        f"Of 100 pictures like these it answers {answered}: {answered - wrong} rightly and {wrong} wrongly "
        f"(probably {_hundreds(sure.confident_wrong)} wrongly). It hands the other {100 - answered} to a radiologist."
    )


def _found(score: Score, concern: str, name: str) -> str:
    figures = score.of(concern)
    if figures.sensitivity is None or figures.specificity is None:
        return ""
    alarms = figures.specificity
    turned = Estimate(1 - alarms.value, 1 - alarms.high, 1 - alarms.low, alarms.pictures, alarms.patients)
    return (
        f"If its likeliest answer is always taken: of 100 pictures of people with {name} it names {name} in "
        f"{of_hundred(figures.sensitivity.value)} (probably {_hundreds(figures.sensitivity)}), and misses the others. Of 100 "
        f"pictures of people without, it raises a false alarm in {of_hundred(turned.value)} (probably {_hundreds(turned)})."
    )


def _alarms(score: Score, concern: str, name: str) -> str:
    figures = score.of(concern)
    if figures.sensitivity is None or figures.specificity is None:
        return ""
    found, false = round(figures.sensitivity.value * 100), round((1 - figures.specificity.value) * 900)
    return (
        f"Where 100 of 1000 people X-rayed have {name}, that is {found + false} alarms: {found} real ones and {false} false ones, "
        f"and {100 - found} people with {name} who go unnoticed."
    )


def _giveaway(figures: Figures, name: str) -> str:
    rows = [row for row in figures.giveaways if row.fact == "source" and row.auc]
    if not rows or max(row.auc.value for row in rows if row.auc) < 0.8:
        return ""
    best = max(rows, key=lambda row: row.auc.value if row.auc else 0)
    assert best.auc is not None
    where = f"In {best.dataset}" if best.dataset else "In this data"
    return (
        f"{where} the source of a picture alone, without looking at it, tells {name} apart with {best.auc.value:.2f} "
        "(1 is always right, 0.5 a coin). So a high score on it proves nothing."
    )


def _same_source(figures: Figures, name: str) -> str:
    rows = [row for row in figures.same_source if row.name == figures.concern]
    if not rows:
        return f"No source here has pictures both with and without {name}: nobody can tell whether it sees disease or source."
    known = [row for row in rows if row.auc]
    if not known:
        counts = f"{rows[0].positives} of {rows[0].pictures} pictures"
        return (
            f"Within one source ({rows[0].source}: {counts} with {name}) there are too few patients on one side to say whether it "
            "sees the disease or the source."
        )
    worst = min(known, key=lambda row: row.auc.value if row.auc else 1)
    assert worst.auc is not None
    return (
        f"Among pictures of one source ({worst.source}) it tells {name} apart with {worst.auc.value:.2f} "
        f"({worst.auc.low:.2f} to {worst.auc.high:.2f}); 0.5 is a coin. This figure matters most."
    )


def _control(figures: Figures, name: str) -> str:
    rows = {row.condition: row for row in figures.controls if not row.dataset and row.auc}
    for condition in _HARD:
        area = rows[condition].auc if condition in rows else None
        if area is not None:
            verdict = "it does not only look at lungs" if area.low > 0.5 else "no better than a coin, as it should be"
            return (
                f"With hardly any lung to be seen ({CONDITIONS[condition]}) it still tells {name} apart with {area.value:.2f} "
                f"({area.low:.2f} to {area.high:.2f}): {verdict}."
            )
    return "Whether it needs the lungs at all was not tested here."


def _elsewhere(row: Elsewhere, name: str) -> str:
    what = f"{place_name(row.protocol)} ({row.dataset})"
    parts = []
    if row.coverage and row.confident_wrong:
        answered, wrong = of_hundred(row.coverage.value), of_hundred(row.confident_wrong.value)
        parts.append(f"of 100 pictures it answers {answered}, {wrong} of them wrongly")
    if row.sensitivity:
        parts.append(f"it names {name} in {of_hundred(row.sensitivity.value)} of 100 who have it")
    if row.false_alarm:
        parts.append(f"it names {name} in {of_hundred(row.false_alarm.value)} of 100 who do not have it")
    if row.strangers_answered:
        parts.append(
            f"of {row.strangers} pictures of none of its classes it labels {of_hundred(row.strangers_answered.value)} in 100"
        )
    return f"{what[:1].upper()}{what[1:]}: {'; '.join(parts) or 'nothing to count'}."


def _hundreds(estimate: Estimate) -> str:
    return f"{of_hundred(estimate.low)} to {of_hundred(estimate.high)}"
