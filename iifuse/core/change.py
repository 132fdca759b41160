"""What a change of whole bitmaps makes of them."""

from iifuse.core.bitmap import Bitmap
from iifuse.core.state import Change


def copy_after(change: Change, shadow: Bitmap, copy: Bitmap, into: Bitmap | None = None) -> Bitmap:
    """The copy bitmap after a change. Repeating it loses nothing: bits are only added.

    `into`: a bitmap that may be overwritten for it.
    """
    if change is Change.GIVE_UP:
        return Bitmap(copy.chunks)
    result = copy.copy(into)
    if change.merges:
        result.merge(shadow)
    elif change in (Change.FILL_TO_SHADOW, Change.FILL_TO_MASTER):
        result.fill()
    return result


def shadow_after(change: Change, shadow: Bitmap, copy: Bitmap) -> Bitmap:
    """The shadow bitmap after a change. Written before bits leave the copy bitmap."""
    result = Bitmap(shadow.chunks)
    if change is Change.GIVE_UP:
        result.merge(shadow)
        result.merge(copy)
    return result
