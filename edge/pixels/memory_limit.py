"""What a process that decodes may hold: beyond it the kernel refuses more, long before it would have to end somebody.

RLIMIT_DATA counts what may be written and is this process's alone: heap, arrays, pictures. RLIMIT_AS would also count the code of
libraries, which the kernel can drop and read again. Both count what is mapped and never touched, such as 32 MiB that OpenBLAS takes
when numpy is imported, for linear algebra that no decoder does; that is added, so that the limit is one of memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import mmap
import os
import resource
from collections.abc import Iterator
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_MOST_UNTOUCHED = 256 * 2**20
"""No more than this is ever added."""
_M_MMAP_THRESHOLD = -3
"""mallopt(3); malloc.h of the GNU C library."""


def limit_memory(size: int) -> None:
    """Hold this process to so many bytes of memory that is its alone, from now on. For before numpy is imported."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # a buffer of 32 MiB for each, and it ends the process where one is refused
    untouched = _untouched()
    resource.setrlimit(resource.RLIMIT_DATA, (size + min(untouched, _MOST_UNTOUCHED), size + _MOST_UNTOUCHED))


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Import libraries within: what they map and do not touch is added to the limit. Without a limit this does nothing."""
    before = _untouched()
    yield
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if soft != resource.RLIM_INFINITY:
        more = soft + max(_untouched() - before, 0)
        resource.setrlimit(resource.RLIMIT_DATA, (more if hard == resource.RLIM_INFINITY else min(more, hard), hard))


def keep_nothing() -> None:
    """Let the C library give back at once what is freed in pieces of 256 KiB or more. By itself it keeps a part of each film.

    For small boards: an uncompressed film of 7.5 megapixels takes 80 ms instead of 35 with it, measured on x86.
    """
    ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 2**18)


def give_back() -> None:
    """Give back what was freed and is kept; of a film of 64 megapixels in JPEG 2000 that is 150 MiB."""
    gc.collect()  # a film in a ring of references
    ctypes.CDLL(None).malloc_trim(0)


def require_memory(size: int) -> None:
    """Raise MemoryError unless so many bytes may be taken: some libraries call a refusal damage, or end the process at one."""
    try:
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError:
        raise MemoryError from None


def _untouched() -> int:
    """Bytes that may be written and are not there (proc(5), statm: the second field less the third is what is there)."""
    _, resident, shared, _, _, data, _ = map(int, Path("/proc/self/statm").read_text("ascii").split())
    return max(data - (resident - shared), 0) * _PAGE
