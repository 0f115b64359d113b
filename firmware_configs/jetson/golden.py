"""What build-engine.sh asks of a golden input: `input PICTURE FILE` writes it as raw floats, `compare PICTURE FILE` judges scores.

For the Python of a Jetson, with the standard library alone. PICTURE is a binary PGM of 192 x 192 pixels. FILE of `compare` is what
`trtexec --exportOutput` writes: a list of {"name", "dimensions", "values"}. golden-scores.json has the scores of onnxruntime.
"""

import array
import json
import sys
from pathlib import Path

_PIXELS = 192 * 192
_NEAR = 0.01
"""Of scores before the softmax. Two ways of adding the same 32-bit floats differ by less than a thousandth."""


def main() -> int:
    """Returns an exit status."""
    do, picture, file = sys.argv[1:]
    if do == "input":
        pixels = Path(picture).read_bytes()[-_PIXELS:]
        Path(file).write_bytes(array.array("f", [pixel / 255 for pixel in pixels]).tobytes())
        return 0
    wanted = json.loads(Path(__file__).with_name("golden-scores.json").read_text("utf-8"))[Path(picture).name]
    outputs = {output["name"]: output["values"] for output in json.loads(Path(file).read_text("utf-8"))}
    found = outputs.get("scores", [])
    if len(found) != len(wanted) or any(abs(a - b) > _NEAR for a, b in zip(found, wanted)):  # noqa: B905 - lengths are equal here
        sys.stderr.write(f"{Path(picture).name}: scores {found}, wanted {wanted}\n")
        return 1
    sys.stdout.write(f"{Path(picture).name}: as on the other devices\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
