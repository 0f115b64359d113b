"""The errors of export, as one small tree.

ExportError              anything that a person can act on; the text says what happened and what to do
`-- WeightsError         a file of weights is missing or belongs to another network
"""

from __future__ import annotations


class ExportError(Exception):
    """Anything that a person can act on."""


class WeightsError(ExportError):
    """A file of weights cannot be used."""
