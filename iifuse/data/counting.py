"""Exact counts of a set's bits, while others go on writing.

They are made on the event loop, a slice at a time, and anew if a point in time comes in between: so
nobody waits for more than a slice. Rejected: a count that is kept with each change, which costs
every first touch; and a thread, which would see the two bits of a chunk at different moments.
"""

from typing import Final

import trio

from iifuse.core.bitmap import sectors_for
from iifuse.data.volumeset import VolumeSet

_SECTORS: Final = 1024
"""Sectors of a bitmap whose bits are counted before others may go on: 128 GiB of a volume."""


async def counts(member: VolumeSet) -> tuple[int, int, int]:
    """(shadow bits, copy bits, chunks with either), of the bits that the set has at the return.

    Others write meanwhile, so two chunks may be seen at different moments, but never the two bits
    of one chunk.
    """
    while True:
        bits, total = member.bits, (0, 0, 0)
        for first in range(0, sectors_for(bits.chunks), _SECTORS):
            if first:
                await trio.lowlevel.checkpoint()
            found = bits.counts(first, _SECTORS)
            total = (total[0] + found[0], total[1] + found[1], total[2] + found[2])
        if member.bits is bits:  # else a point in time has come in between
            return total
