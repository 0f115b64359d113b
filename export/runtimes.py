"""The int8 arithmetic of each runtime that a device may have, here on one machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edge.contract.bundle import Runtime
from edge.network.classify import new_interpreter

New = Callable[[bytes, int], Any]


def reference_kernels(model: bytes, threads: int) -> Any:
    """Return an interpreter that computes what tflite-runtime 2.14 does on 32-bit ARM.

    That wheel does not hand int8 to XNNPACK, and its kernels for ARM round as TFLite's reference kernels do; those for x86, of the
    same version, do not. LiteRT's reference kernels give the same to the bit, six times slower (ADR 0012; `make armhf` compares
    every output with the wheel on emulated ARM).
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    return Interpreter(model_content=model, num_threads=threads, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)


RUNTIMES: Mapping[Runtime, New] = {"ai-edge-litert": new_interpreter, "tflite-runtime": reference_kernels}
"""What makes an interpreter like that runtime's."""
