"""The int8 arithmetic of each runtime that a device may have, here on one machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edge.contract.bundle import Runtime
from edge.network.classify import new_interpreter

New = Callable[[bytes, int], Any]


def without_xnnpack(model: bytes, threads: int) -> Any:
    """Return an interpreter whose int8 kernels are those of tflite-runtime 2.14.

    That wheel does not hand int8 to XNNPACK. LiteRT without its delegate has the same kernels: every output of 153 pictures was the
    same to the bit (ADR 0012), and `tests/unit/export/test_runtimes.py` compares them with the wheel in `make soak`.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    return Interpreter(model_content=model, num_threads=threads, experimental_op_resolver_type=kernels)


RUNTIMES: Mapping[Runtime, New] = {"ai-edge-litert": new_interpreter, "tflite-runtime": without_xnnpack}
"""What makes an interpreter like that runtime's."""
