"""File names as text that every database, log and JSON parser takes."""

from __future__ import annotations


def printable(name: str) -> str:
    """Return a file name with every byte that is not UTF-8 written as a backslash, x and two hex digits.

    Linux names are bytes; Python keeps the odd ones as surrogates, which neither SQLite nor JSON takes.
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def on_one_line(name: str) -> str:
    """Return a name for a terminal: it may hold a new line, or a command to the terminal."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in printable(name))
