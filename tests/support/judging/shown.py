"""What master and shadow show: said once, for every explorer and every judge.

After a verb: by `moves`. From what lies on the volumes: by the bits. A chunk may be its bytes or a
name for them; bits are integers, of which bit n is that of chunk n. All of it is what the manual
says (iifuse(7), iifuse-bitmap(5)); nothing of the product is used.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

CHUNK = 32 * 1024
INDEPENDENT, DEPENDENT = 1, 2
IDLE, TO_SHADOW, TO_MASTER = 0, 1, 2

T = TypeVar("T")
Chunks = Sequence[Any]


class Bits(NamedTuple):
    """As much of a set as decides what is shown."""

    kind: int
    progress: int
    shadow: int
    copy: int


def moves(to_master: bool, pairs: Iterable[tuple[T, T]]) -> dict[T, T]:
    """Target -> source of a point in time of these (shadow, master): it shows what that showed."""
    return {m if to_master else s: s if to_master else m for s, m in pairs}


def of_master(raw: Chunks, sets: Iterable[tuple[Bits, Chunks]]) -> Chunks:
    """What the master's file shows; `sets`: each with its raw shadow."""
    for bits, shadow in sets:
        if bits.progress == TO_MASTER:
            return _mixed(shadow, raw, bits.copy)
    return raw


def of_shadow(master: Chunks, raw: Chunks, bits: Bits) -> Chunks:
    """What the shadow's file shows, by both raw volumes."""
    if bits.kind == DEPENDENT:
        return _mixed(raw, master, bits.shadow | bits.copy)
    return _mixed(master, raw, bits.copy) if bits.progress == TO_SHADOW else raw


def _mixed(yes: Chunks, no: Chunks, bits: int) -> Chunks:
    if not bits:
        return no
    return [yes[n] if bits >> n & 1 else chunk for n, chunk in enumerate(no)]


def unrecorded(master: Chunks, shadow: Chunks, bits: int) -> list[int]:
    """The chunks that differ with no bit set: of an independent set the next update lacks them."""
    pairs = enumerate(zip(master, shadow, strict=False))
    return [n for n, (one, other) in pairs if one != other and not bits >> n & 1]


def chunks(volume: bytes) -> list[bytes]:
    """The chunks of a volume."""
    return [volume[at : at + CHUNK] for at in range(0, len(volume), CHUNK)]
