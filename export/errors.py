"""The errors of export, as one small tree.

ExportError              anything that a person can act on; the text says what happened and what to do
|-- DataError            labelled pictures are missing, unreadable, or too few to learn from and to test on
|-- ConversionError      a network cannot be written in the wanted format, or pruned
|-- ReportError          a bundle's report is missing or of another kind of model
`-- WeightsError         a file of weights is missing or belongs to another network
"""

from __future__ import annotations


class ExportError(Exception):
    """Anything that a person can act on."""


class DataError(ExportError):
    """The labelled pictures cannot be used."""


class ConversionError(ExportError):
    """A network cannot be written in the wanted format."""


class ReportError(ExportError):
    """A bundle's report cannot be used."""


class WeightsError(ExportError):
    """A file of weights cannot be used."""
