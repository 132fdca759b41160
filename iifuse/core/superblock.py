"""When a file system was written last, as its superblock tells.

Only two copies of the same file system can be compared by this. The kernel writes these fields at
an unmount or a freeze, so a file system that is mounted may be newer than they say.
"""

import struct
from typing import Final

HEAD_BYTES: Final = 68 * 1024
"""How many bytes of the beginning of a volume `last_write` needs, or all of a smaller volume."""

_EXT: Final = 1024
_EXT_MAGIC: Final = b"\x53\xef"
_XFS_MAGIC: Final = b"XFSB"
_XFS_NEWEST: Final = 5
_BTRFS: Final = 64 * 1024
_BTRFS_MAGIC: Final = b"_BHRfS_M"


def last_write(head: bytes) -> int | None:
    """A number that rises with each write; None: the file system is not known.

    For XFS and btrfs it is a count. For ext2 to ext4 it is the time of the last write, in seconds,
    followed by the number of KiB that were ever written, because several writes fall into a second.
    """
    if head[_EXT + 0x38 : _EXT + 0x3A] == _EXT_MAGIC and len(head) > _EXT + 0x274:
        (low,) = struct.unpack_from("<I", head, _EXT + 0x30)  # s_wtime, s_wtime_hi
        (kbytes,) = struct.unpack_from("<Q", head, _EXT + 0x178)
        return (int(low) | head[_EXT + 0x274] << 32) << 64 | int(kbytes)
    if head[:4] == _XFS_MAGIC and len(head) >= 248:
        (version,) = struct.unpack_from(">H", head, 100)
        (number,) = struct.unpack_from(">Q", head, 240)  # sb_lsn
        return int(number) if version & 0xF == _XFS_NEWEST else None
    if head[_BTRFS + 0x40 : _BTRFS + 0x48] == _BTRFS_MAGIC and len(head) >= _BTRFS + 0x50:
        (number,) = struct.unpack_from("<Q", head, _BTRFS + 0x48)  # generation
        return int(number)
    return None
