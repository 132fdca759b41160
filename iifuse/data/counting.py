"""Exact counts of a set's bits, while programs go on writing.

The bits are counted on the event loop in slices, so nobody waits for more than one slice. If a
point in time comes in between, the count begins again. Rejected: a count that each change keeps up
to date, which would cost every first touch some time; and a thread, which would see the two bits of
a chunk at different moments.
"""

from typing import Final

import trio

from iifuse.core.bitmap import sectors_for
from iifuse.data.volumeset import VolumeSet

_SECTORS: Final = 1024
"""Sectors of a bitmap that are counted before other tasks get a turn: 128 GiB of a volume."""


async def counts(member: VolumeSet) -> tuple[int, int, int]:
    """Count the bits of a set: (shadow bits, copy bits, chunks with either).

    Programs write meanwhile. So the bits of two chunks may be from different moments, but the two
    bits of one chunk never are.
    """
    while True:
        bits, total = member.bits, (0, 0, 0)
        for first in range(0, sectors_for(bits.chunks), _SECTORS):
            if first:
                await trio.lowlevel.checkpoint()
            found = bits.counts(first, _SECTORS)
            total = (total[0] + found[0], total[1] + found[1], total[2] + found[2])
        if member.bits is bits:  # else a point in time was made meanwhile
            return total
