"""Freed memory stays with the process, where the C library can be told so."""

import ctypes
import resource

import numpy as np
import pytest

from audiofoundation.preprocessing.allocator import keep_freed_memory


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library has no mallopt")
def test_arrays_that_are_made_again_fault_no_pages() -> None:
    assert keep_freed_memory()
    np.ones(1 << 20, np.float32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(1 << 20, np.float32)  # 4 MiB: a thousand pages each
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 10_000
