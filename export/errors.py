"""The errors of export, as one small tree.

ExportError              anything that a person can act on; the text says what happened and what to do
|-- DataError            labelled pictures are missing, unreadable, or too few to learn from and to test on
|-- ConversionError      a network cannot be written in the wanted format, or pruned
|-- RecipeError          a recipe of a training does not exist, says what cannot be, or is not the one a folder was begun with
|-- ReportError          a bundle's report is missing or of another kind of model
`-- WeightsError         a file of weights is missing or belongs to another network
    `-- FetchError       weights of keras.applications cannot be fetched from here
"""

from __future__ import annotations


class ExportError(Exception):
    """Anything that a person can act on."""


class DataError(ExportError):
    """The labelled pictures cannot be used."""


class RecipeError(ExportError):
    """A recipe cannot be used."""


class ConversionError(ExportError):
    """A network cannot be written in the wanted format."""


class ReportError(ExportError):
    """A bundle's report cannot be used."""


class WeightsError(ExportError):
    """A file of weights cannot be used."""


class FetchError(WeightsError):
    """Weights cannot be fetched. `backbone` names whose."""

    def __init__(self, message: str, backbone: str) -> None:
        """Keep the name."""
        super().__init__(message)
        self.backbone = backbone
