"""Which samples validate."""

import hashlib
import math
from collections.abc import Sequence


def choose_validation(hashes: Sequence[str], *, share: float) -> list[int]:
    """Choose by the content of recordings alone, so that order and names do not matter and most stay on their side
    when others come.

    Args:
        hashes: content hash of each sample, all different; at least one.
        share: part that validates, in [0, 1); rounded up, but one sample always trains.

    Returns:
        Indices in ascending order.
    """
    num_validation = min(math.ceil(round(share * len(hashes), 9)), len(hashes) - 1)
    ranked = sorted(range(len(hashes)), key=lambda index: hashlib.sha256(f"split {hashes[index]}".encode()).digest())
    return sorted(ranked[:num_validation])
