"""How much of burned-in writing `edge.privacy.clean_pixels` takes out of real X-rays, and what else of them it takes.

    python -m tests.benchmarks.burned_in FOLDER_OF_PICTURES [--count 40] [--side 2048]

Writing of several sizes, weights and contrasts is put on each picture. Told are the share of the pixels of its strokes that were
replaced, how many of the words tesseract (Debian's package tesseract-ocr, where it is installed) reads before and after, and which
share of the untouched pictures is replaced. Large sides are made by enlarging, with the grain of a detector.
"""

from __future__ import annotations

import argparse
import io
import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from edge.errors import ImageError
from edge.privacy.clean_pixels import MOST, clean, filled, writing

_WORDS = ("LOVELACE ADA", "MRN 4711-8825", "12.10.1915", "OKAFOR NGOZI", "KIPTOO 0099417")
_FONTS = "/usr/share/fonts/truetype/dejavu"
_CONTRASTS = (255, 120, 60, 40, 25)
_HEIGHTS = (0.014, 0.025, 0.05, 0.09)


def main() -> None:
    """Print one table."""
    reader = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    reader.add_argument("folder", type=Path)
    reader.add_argument("--count", type=int, default=40)
    reader.add_argument("--side", type=int, default=0, help="longer side in pixels; 0: as they are")
    given = reader.parse_args()
    rng = random.Random(1)
    files = sorted(path for path in given.folder.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    images = [_opened(path, given.side) for path in rng.sample(files, min(given.count, len(files)))]
    _untouched(images)
    print("| where | grey levels | height | strokes replaced, mean (least) | words read before, after |")
    print("|---|---|---|---|---|")
    for where in ("margin", "chest"):
        for contrast in _CONTRASTS:
            for height in _HEIGHTS:
                _row(images, where, contrast, height, rng)


def _untouched(images: list[Image.Image]) -> None:
    shares, chest = [], []
    refused = 0
    for image in images:
        mask = writing(image)
        rows, columns = (round(length * 0.12) for length in mask.shape)
        shares.append(mask.mean())
        chest.append(mask[rows:-rows, columns:-columns].mean())
        try:
            clean(image)
        except ImageError:
            refused += 1
    quarters = ", ".join(f"{value:.3f}" for value in np.quantile(shares, (0.5, 0.9, 1.0)))
    print(f"untouched: {np.mean(shares):.3f} replaced (median, 90%, most: {quarters}), {np.mean(chest):.3f} within the margins;")
    print(f"{refused} of {len(images)} are not released, since more than {MOST:.0%} would be replaced\n")


def _row(images: list[Image.Image], where: str, contrast: int, height: float, rng: random.Random) -> None:
    recalls, before, after = [], 0, 0
    for image in images:
        text = rng.choice(_WORDS)
        drawn, strokes = _written(image, text, where, contrast, height, rng)
        if not strokes.any():
            continue
        mask = writing(drawn)
        recalls.append(float(mask[strokes].mean()))
        before += _reads(drawn, text)
        after += _reads(Image.fromarray(filled(np.asarray(drawn), mask)), text)
    words = f"{before}, {after} of {len(recalls)}" if shutil.which("tesseract") else "not read"
    print(f"| {where} | {contrast} | {height:.1%} | {np.mean(recalls):.3f} ({min(recalls):.3f}) | {words} |", flush=True)


def _opened(path: Path, side: int) -> Image.Image:
    with Image.open(path) as opened:
        image = opened.convert("L")
    if not side:
        return image
    factor = side / max(image.size)
    large = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)
    grain = np.random.default_rng(1).normal(0, 3, (large.height, large.width))
    return Image.fromarray((np.asarray(large) + grain).clip(0, 255).astype(np.uint8))


def _written(
    image: Image.Image, text: str, where: str, contrast: int, height: float, rng: random.Random
) -> tuple[Image.Image, np.ndarray]:
    """Return the picture with a text on it, and which pixels are its strokes. 255 grey levels: as white or as black as can be."""
    font = ImageFont.truetype(str(rng.choice(sorted(Path(_FONTS).glob("*.ttf")))), max(9, round(height * max(image.size) / 0.73)))
    wide, high = (int(value) for value in ImageDraw.Draw(image).textbbox((0, 0), text, font=font)[2:])
    margin = (rng.choice((5, image.width - wide - 5)), rng.choice((4, image.height - high - 5)))
    middle = (0.2 * image.width + rng.random() * max(0.6 * image.width - wide, 1), rng.uniform(0.25, 0.7) * image.height)
    layer = Image.new("L", image.size, 0)
    ImageDraw.Draw(layer).text(margin if where == "margin" else middle, text, font=font, fill=255)
    share = np.asarray(layer) / 255
    gray = np.asarray(image).astype(float)
    under = gray[share > 0.5].mean() if (share > 0.5).any() else 0
    if contrast == 255:
        drawn = gray * (1 - share) + (255 if under < 200 else 0) * share
    else:
        drawn = gray + (contrast if under + contrast < 250 else -contrast) * share
    return Image.fromarray(drawn.clip(0, 255).astype(np.uint8)), share > 0.5


def _reads(image: Image.Image, text: str) -> bool:
    """Whether tesseract reads any word of the text."""
    if not shutil.which("tesseract"):
        return False
    out = io.BytesIO()
    image.resize((image.width * 2, image.height * 2) if max(image.size) < 1000 else image.size).save(out, "PNG")
    command = ["tesseract", "stdin", "stdout", "--psm", "11"]
    said = subprocess.run(command, input=out.getvalue(), capture_output=True, check=False).stdout.decode("utf-8", "replace")
    return any(word in said.upper() for word in text.split() if len(word) > 2)


if __name__ == "__main__":
    main()
