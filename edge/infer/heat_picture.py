"""A film with the heat over it, as the clinic's page shows it and as it goes to the PACS."""

from __future__ import annotations

from PIL import Image

from edge.infer.local import Heat
from edge.pixels.preprocess import centre_square

_HOTTEST = 0.55
"""Share of colour where the heat is greatest: what lies under it stays to be seen."""


def fit(image: Image.Image, side: int) -> Image.Image:
    """Return the picture with its longer side at most `side` pixels."""
    factor = min(1.0, side / max(image.size))
    return image.resize((max(round(image.width * factor), 1), max(round(image.height * factor), 1)), Image.Resampling.BOX)


def with_heat(image: Image.Image, heat: Heat) -> Image.Image:
    """Return the picture in colour, with the heat over the square that the network was given.

    Args:
        image: mode L.
        heat: rows x columns bytes, 0..255.
    """
    left, upper, right, lower = centre_square(image.height, image.width)
    cells = Image.frombytes("L", (heat.columns, heat.rows), heat.values)
    spread = cells.resize((right - left, lower - upper), Image.Resampling.BICUBIC)
    strength = spread.point([round(value * _HOTTEST) for value in range(256)])
    result = image.convert("RGB")
    result.paste(in_colour(spread), (left, upper), strength)
    return result


def in_colour(heat: Image.Image) -> Image.Image:
    """Return heat (mode L) in the colours that it is drawn in."""
    return Image.merge("RGB", [heat.point(table) for table in (_RED, _GREEN, _BLUE)])


# From amber to red: tells apart for most who see colours otherwise, since it also gets darker.
_RED = [255] * 256
_GREEN = [round(200 - 170 * value / 255) for value in range(256)]
_BLUE = [round(40 - 20 * value / 255) for value in range(256)]
