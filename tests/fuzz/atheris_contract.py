"""Coverage-guided fuzzing of the wire contract with atheris, where somebody has installed it.

python -m tests.fuzz.atheris_contract build/contract tests/fuzz/found/contract tests/golden/messages -max_len=20000
"""

from __future__ import annotations

import sys


def main() -> None:
    """Fuzz until a promise of the contract is broken."""
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is not installed. `pip install atheris` into an environment of your own, then try again.")
    with atheris.instrument_imports():
        from tests.fuzz.contract import check
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
