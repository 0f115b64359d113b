"""Coverage-guided fuzzing of decoding with atheris, where somebody has installed it.

    python -m tests.fuzz.corpus build/corpus
    python -m tests.fuzz.atheris_decode build/corpus -max_len=200000 -rss_limit_mb=2048

It runs in one process: a decoder that crashes ends it, and the input is kept beside it as crash-*.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import warnings
from pathlib import Path

from edge.contract.reasons import REASONS
from edge.errors import ImageError


def main() -> None:
    """Fuzz until a file gives another error than one with a known reason."""
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is not installed. `pip install atheris` into an environment of your own, then try again.")
    with atheris.instrument_imports():
        from edge.pixels import dicom_pixels  # loaded late by `decode`, when nothing is instrumented any more
        from edge.pixels.decode import Limits, decode_file
        from edge.privacy.identifiers import patient_of
    assert dicom_pixels
    path = Path(tempfile.mkdtemp()) / "picture"
    limits = Limits(max_pixels=1_000_000)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)

    def one(content: bytes) -> None:
        path.write_bytes(content)
        try:
            patient, missing = patient_of(decode_file(path, limits).headers)
        except ImageError as error:
            if error.reason not in REASONS:
                raise RuntimeError(error.reason) from error
        else:
            if (patient is None) == (missing is None) or "\0" in (patient or ""):
                raise RuntimeError(f"{patient!r} {missing!r}")

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
