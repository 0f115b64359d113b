"""The picture for the PACS: the film, the heat over it, and under it in words what the answer is and whose."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

from edge.contract.messages import Result
from edge.infer.heat_picture import fit, in_colour, with_heat
from edge.infer.local import Heat
from edge.pacs.wording import PRELIMINARY, class_name, headline, origin, percent, sentences

SIDE = 1024
"""Pixels of the longer side of the film; the film itself is in the PACS."""
_LEAST_WIDTH = 720
"""So that the words have room beside a narrow film."""
_MARGIN = 16
_BLACK, _WHITE, _SOFT, _WARNING = (0, 0, 0), (255, 255, 255), (190, 190, 190), (255, 200, 40)
_LARGE, _MIDDLE, _SMALL = 34, 22, 18
_LEGEND = "Heat: where the network saw what speaks for its answer (amber: little, red: most). It outlines nothing."


def draw_answer(film: Image.Image, result: Result, heat: Heat | None) -> Image.Image:
    """Return the picture, mode RGB.

    Args:
        film: mode L, as a radiologist would see it.
        result: the answer.
        heat: that of the answer; None where there is none. It is not drawn for an answer that the network is not sure of.
    """
    small = fit(film, SIDE)
    hot = None if result.abstained else heat
    shown = small.convert("RGB") if hot is None else with_heat(small, hot)
    width = max(shown.width, _LEAST_WIDTH)
    head, foot = _band(width), _words(width, result, hot is not None)
    page = Image.new("RGB", (width, head.height + shown.height + foot.height))
    page.paste(head, (0, 0))
    page.paste(shown, ((width - shown.width) // 2, head.height))
    page.paste(foot, (0, head.height + shown.height))
    return page


def _band(width: int) -> Image.Image:
    band = Image.new("RGB", (width, _MIDDLE + 18), _WARNING)
    font = ImageFont.load_default(_MIDDLE)
    ImageDraw.Draw(band).text((width // 2, band.height // 2), PRELIMINARY, _BLACK, font, anchor="mm")
    return band


def _words(width: int, result: Result, heated: bool) -> Image.Image:
    likeliest = sorted(result.probabilities.items(), key=lambda item: -item[1])
    shares = ", ".join(f"{class_name(name)} {percent(value)}" for name, value in likeliest)
    lines = [(headline(result), _LARGE, _WARNING if result.abstained else _WHITE)]
    lines += [(f"Probabilities: {shares}", _MIDDLE, _WHITE)]
    lines += [(f"Below a probability of {percent(result.threshold)} it says that it is not sure.", _SMALL, _SOFT)]
    lines += [(sentence, _SMALL, _SOFT) for sentence in sentences(result)]
    lines += [(_LEGEND, _SMALL, _SOFT)] if heated else []
    lines += [(f"{origin(result)}, model {result.model[:12]}", _SMALL, _SOFT)]
    rows = [(row, size, colour) for text, size, colour in lines for row in _wrapped(text, size, width - 2 * _MARGIN)]
    foot = Image.new("RGB", (width, 2 * _MARGIN + sum(_pitch(size) for _, size, _ in rows)))
    pen, y = ImageDraw.Draw(foot), _MARGIN
    for text, size, colour in rows:
        pen.text((_MARGIN, y), text, colour, ImageFont.load_default(size))
        y += _pitch(size)
    if heated:
        scale = in_colour(Image.linear_gradient("L").rotate(90).resize((160, 14)))
        foot.paste(scale, (width - _MARGIN - scale.width, _MARGIN + 10))
    return foot


def _wrapped(text: str, size: int, width: int) -> list[str]:
    font, rows = ImageFont.load_default(size), [""]
    for word in text.split():
        longer = f"{rows[-1]} {word}".lstrip()
        if font.getlength(longer) <= width or not rows[-1]:
            rows[-1] = longer
        else:
            rows.append(word)
    return rows


def _pitch(size: int) -> int:
    return round(size * 1.35)
