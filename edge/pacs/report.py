"""The structured report: TID 1500, Measurement Report, marked preliminary, partial and unverified.

The words that no coding scheme has are our own codes, in a scheme that begins with 99, as DICOM has it. Sides are those of the
image: which of them is the patient's left is for the film to say.
"""

from __future__ import annotations

import warnings

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ComprehensiveSRStorage

from edge.contract.messages import AnyOutcome, Result, Void
from edge.pacs.orders import REPORT
from edge.pacs.study import MAY_BE_EMPTY, NEEDED, put_common
from edge.pacs.uids import derived_uid
from edge.pacs.wording import PRELIMINARY, class_name, headline, origin, sentences
from edge.pixels.study_header import MANUFACTURER

SCHEME = "99CXREDGE"
_PERCENT = CodedConcept("%", "UCUM", "Percent")
_FINDINGS = {
    "normal": CodedConcept("17621005", "SCT", "Normal"),
    "pneumonia": CodedConcept("233604007", "SCT", "Pneumonia"),
    "covid19": CodedConcept("840539006", "SCT", "COVID-19"),
    "covid": CodedConcept("840539006", "SCT", "COVID-19"),
}
_UNDETERMINED = CodedConcept("373068000", "SCT", "Undetermined")


def make_report(header: Dataset, outcome: AnyOutcome, withdrawn: AnyOutcome | None) -> Dataset:
    """Return the object.

    Args:
        header: of the picture that the answer is about; see `edge.pacs.study`.
        outcome: the answer, or that there is none, or that an earlier one is taken back.
        withdrawn: the one that `outcome` takes back; None unless it is a Void.
    """
    evidence = Dataset()
    for name in NEEDED:
        evidence[name] = header[name]
    for name in MAY_BE_EMPTY:
        setattr(evidence, name, None)  # highdicom would want to understand them; those of the picture are put in below as they came
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = ComprehensiveSR(
            evidence=[evidence],
            content=_content(header, outcome),
            series_instance_uid=derived_uid("replaced below"),
            series_number=1,
            sop_instance_uid=derived_uid(outcome.epoch, outcome.seq, REPORT),
            instance_number=1,
            manufacturer=MANUFACTURER,
            is_complete=False,
            is_final=False,
            is_verified=False,
            specific_character_set=None,
            coding_schemes=[CodingSchemeIdentificationItem(SCHEME, name="Terms of cxr-edge")],
            previous_versions=None if withdrawn is None else [_earlier(header, withdrawn)],
        )
    put_common(report, header, outcome, REPORT)
    del report.ContributingEquipmentSequence  # it names the moment at which this was made, and a report sent again is the same
    report.CompletionFlagDescription = PRELIMINARY
    return report


def _content(header: Dataset, outcome: AnyOutcome) -> MeasurementReport:
    model = [f"model SHA-256 {outcome.model}"] if isinstance(outcome, Result) else []
    observer = DeviceObserverIdentifyingAttributes(
        uid=derived_uid("device", outcome.facility, outcome.device),
        name=outcome.device,
        manufacturer_name=MANUFACTURER,
        model_name=", ".join([f"cxr-edge {outcome.software}", *model]),
        physical_location=outcome.facility,
    )
    report = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=ObserverContext(codes.DCM.Device, observer)),
        procedure_reported=codes.SCT.ChestImaging,
        imaging_measurements=[_group(header, outcome)],
    )
    for text in (PRELIMINARY, f"{headline(outcome)}.", *sentences(outcome), origin(outcome)):
        report[0].ContentSequence.append(TextContentItem(codes.DCM.Comment, text, RelationshipTypeValues.CONTAINS))
    return report


def _group(header: Dataset, outcome: AnyOutcome) -> MeasurementsAndQualitativeEvaluations:
    result = outcome if isinstance(outcome, Result) else None
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            derived_uid(outcome.epoch, outcome.seq, "finding"), f"{outcome.device} no. {outcome.seq}"
        ),
        finding_type=None if result is None else _UNDETERMINED if result.abstained else _finding(result.label),
        algorithm_id=None if result is None else _algorithm(result),
        measurements=None if result is None else _measurements(result),
        qualitative_evaluations=[QualitativeEvaluation(_own("answer", "Answer of the device"), _answer(outcome))],
        source_images=[SourceImageForMeasurementGroup(str(header.SOPClassUID), str(header.SOPInstanceUID))],
    )


def _algorithm(result: Result) -> AlgorithmIdentification:
    said = [f"model SHA-256 {result.model}", f"threshold {result.threshold:g}", f"preprocessing {result.preprocessing}"]
    said += [] if result.typicality is None else [f"typicality {result.typicality:g}"]
    return AlgorithmIdentification("cxr-edge", result.software, said, manufacturer=MANUFACTURER)


def _measurements(result: Result) -> list[Measurement]:
    shares = [(_own(f"p_{name}", f"Probability of {class_name(name)}"), value) for name, value in result.probabilities.items()]
    shares += [(_own("threshold", "Threshold below which it is not sure"), result.threshold)]
    shares += [(_own(f"heat_{zone.removeprefix('image_')}", _zone(zone)), value) for zone, value in result.heat.items()]
    return [Measurement(name, round(100 * value, 2), _PERCENT) for name, value in shares]


def _zone(name: str) -> str:
    words = name.removeprefix("image_").split("_")
    place = f"image {words[0]} half, {words[1]}" if len(words) > 1 else f"{words[0]} part of the image"
    return f"Share of the heat: {place}"


def _answer(outcome: AnyOutcome) -> CodedConcept:
    if isinstance(outcome, Result) and not outcome.abstained:
        return _finding(outcome.label)
    code = "not_sure" if isinstance(outcome, Result) else "withdrawn" if isinstance(outcome, Void) else "no_answer"
    return _own(code, headline(outcome))


def _finding(label: str) -> CodedConcept:
    return _FINDINGS.get(label) or _own(f"class_{label}", class_name(label))


def _own(code: str, meaning: str) -> CodedConcept:
    # A code has 16 letters at most in its usual place; longer ones stand in another, which highdicom chooses.
    return CodedConcept(code, SCHEME, meaning[:64])


def _earlier(header: Dataset, withdrawn: AnyOutcome) -> Dataset:
    earlier = Dataset()
    put_common(earlier, header, withdrawn, REPORT)
    earlier.SOPClassUID = ComprehensiveSRStorage
    return earlier
