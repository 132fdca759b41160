"""Is every sector one of those that it may be? So ask the judges of power failures and of kills.

A sector is a row of an array: of its words, or of its tag alone. The exerciser asks another thing,
byte by byte: several of its requests write to one sector.
"""

from collections.abc import Sequence

import numpy as np
from stamps import SECTOR, explain


def rows(data: bytes) -> np.ndarray:
    """shape (sectors, 64), dtype uint64; the end of the volume is filled up with zeros."""
    return np.frombuffer(data.ljust(-(-len(data) // SECTOR) * SECTOR, b"\0"), "<u8").reshape(-1, 64)


def wrong_sectors(found: np.ndarray, layers: Sequence[np.ndarray]) -> np.ndarray:
    """The sectors that are those of no layer; each layer is a whole volume, shape (sectors, n)."""
    wrong = np.arange(len(found))
    for layer in reversed(layers):
        wrong = wrong[(found[wrong] != layer[wrong]).any(axis=1)]
    return wrong


def fits(actual: bytes, layers: Sequence[np.ndarray]) -> bool:
    """Has a volume the right length, and is every sector one of the alternatives?"""
    found = rows(actual)
    return found.shape == layers[0].shape and not len(wrong_sectors(found, layers))


def misfits(actual: bytes, layers: Sequence[np.ndarray]) -> str:
    """The sectors that are none of the alternatives, for people."""
    found = rows(actual)
    if found.shape != layers[0].shape:
        return f"{len(found)} sectors instead of {len(layers[0])}"
    bad = wrong_sectors(found, layers)
    shown = ", ".join(f"{s} (chunk {s // 64}): {explain(found[s].tobytes())}" for s in bad[:4])
    wanted = [explain(layer[bad[0]].tobytes()) for layer in layers]
    return f"{len(bad)} sectors, {shown}; expected {wanted}"
