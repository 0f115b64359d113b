"""What the commands of `cxr-export` have in common: types of their arguments, and texts of the form NAME=VALUE."""

from __future__ import annotations

from pathlib import Path

import click

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)


def assignment(text: str, option: str, form: str) -> tuple[str, str]:
    """Return (NAME, VALUE) of NAME=VALUE; the value may be empty.

    Raises:
        click.BadParameter: if the text has another form; `option` and `form` are named to the person.
    """
    name, sign, value = text.partition("=")
    if not (name and sign):
        raise click.BadParameter(f"{text!r} is not {form}", param_hint=option)
    return name, value


def named_file(text: str) -> tuple[str, Path]:
    """Return (BACKBONE, FILE) of an option's text.

    Raises:
        click.BadParameter: if the text has another form.
    """
    name, file = assignment(text, "--weights", "BACKBONE=FILE")
    if not file:
        raise click.BadParameter(f"{text!r} is not BACKBONE=FILE", param_hint="--weights")
    return name, Path(file)
