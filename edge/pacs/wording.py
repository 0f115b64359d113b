"""What an answer to the PACS says in words, the same in picture and report. English and ASCII: any character set holds it."""

from __future__ import annotations

import datetime

from edge.clock import local_time
from edge.contract.messages import AnyOutcome, Failure, Refusal, Result, Void
from edge.contract.reasons import NOT_SURE, advice

PRELIMINARY = "PRELIMINARY - research aid, not a diagnosis"
_NAMES = {"covid19": "COVID-19", "covid": "COVID-19"}


def class_name(name: str) -> str:
    """Return a class of the network as people write it, at most 64 letters."""
    return _NAMES.get(name, name.replace("_", " ").capitalize())[:64]


def headline(outcome: AnyOutcome) -> str:
    """Return the answer, at most 64 letters."""
    if isinstance(outcome, Result):
        return NOT_SURE.capitalize() if outcome.abstained else class_name(outcome.label)
    if isinstance(outcome, Void):
        return "Withdrawn: do not use the earlier answer"
    return "No answer"


def sentences(outcome: AnyOutcome) -> list[str]:
    """Return what belongs to the answer: reasons, and what the network does not know."""
    if isinstance(outcome, Result):
        known = ", ".join(class_name(name) for name in outcome.probabilities)
        return [*map(advice, outcome.quality), f"The network knows these answers alone: {known}. It sees no other disease."]
    if isinstance(outcome, Void):
        return [f"Answer no. {outcome.voids} of this device is taken back.", *map(advice, outcome.reasons)]
    assert isinstance(outcome, Refusal | Failure)
    return [advice(reason) for reason in outcome.reasons]


def percent(value: float) -> str:
    """Return a probability as people read it, never 100% or 0% for what is not exactly that."""
    if 0 < value < 0.001:
        return "<0.1%"
    if 0.999 < value < 1:
        return ">99.9%"
    return f"{value:.1%}"


def moment(outcome: AnyOutcome) -> datetime.datetime:
    """Return when the outcome was recorded, by the clock of this device and in its time zone."""
    return local_time(outcome.recorded_at) or datetime.datetime.fromtimestamp(0).astimezone()


def origin(outcome: AnyOutcome) -> str:
    """Return which device says so, and when."""
    clock = "" if outcome.clock_synchronised else " (the device's clock was not set)"
    when = moment(outcome).strftime("%Y-%m-%d %H:%M")
    return f"{outcome.facility}, {outcome.device}, cxr-edge {outcome.software}, no. {outcome.seq}, {when}{clock}"
