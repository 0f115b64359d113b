"""Every int8 output of the shipped networks, as JSON. Run on this machine and on a board, so that the two can be compared.

    python int8_outputs.py FOLDER MODEL.tflite...

FOLDER holds network inputs as PGM files. Needs the device's own package and nothing of the tests, since a board has nothing else.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from edge.network.classify import new_interpreter, runtime
from edge.pixels.network_input import read_pgm


def outputs(model: Path, folder: Path, new: Callable[[bytes, int], Any] = new_interpreter) -> dict[str, str]:
    """Return the SHA-256 of each output tensor for each input, by "model, input, output". `new` makes the interpreter."""
    import numpy as np

    interpreter = new(model.read_bytes(), 1)
    interpreter.allocate_tensors()
    taken = interpreter.get_input_details()[0]
    found = {}
    for path in sorted(folder.glob("*.pgm")):
        signed = (read_pgm(path.read_bytes()) ^ np.uint8(0x80)).view(np.int8)
        interpreter.set_tensor(taken["index"], signed[np.newaxis, :, :, np.newaxis])
        interpreter.invoke()
        for given in interpreter.get_output_details():
            tensor = interpreter.get_tensor(given["index"])
            assert tensor.dtype == np.int8
            found[f"{model.name}, {path.stem}, {given['name']}"] = hashlib.sha256(tensor.tobytes()).hexdigest()
    return found


def main() -> None:
    """Print them, with the runtime and its version."""
    folder, *models = map(Path, sys.argv[1:])
    found = {key: value for model in models for key, value in outputs(model, folder).items()}
    print(json.dumps({"runtime": f"{runtime()} {metadata.version(runtime())}", "outputs": found}))


if __name__ == "__main__":
    main()
