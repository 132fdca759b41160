"""The times of files on the mount when their set learns of a record that it did not know."""

from iifuse.core.header import Header
from iifuse.core.state import Role
from iifuse.core.times import Times
from iifuse.engine.engine import Engine
from iifuse.engine.view import View
from iifuse.engine.volumeset import VolumeSet


async def rise_above(engine: Engine, view: View, known: Times) -> None:
    """Nothing that the file has shown by that record comes again; the record is made anew."""
    if known.next_ns > view.times.ctime_ns:
        await engine.changed(view, known.next_ns)
    else:
        await engine.timekeeper.keep(view)


async def show_other_times(
    engine: Engine, member: VolumeSet, lost: Role, recalled: Header | None
) -> None:
    """The file of a volume that was replaced shows another content; all keep their times anew.

    `recalled`: a header that was not there when the files came to the mount.
    """
    views = engine.master_view(engine.family(member)), engine.views.get(member.name)
    for view in filter(None, views):
        known = view.times_in(recalled) if recalled is not None else Times()
        if lost & view.role:
            await engine.changed(view, known.next_ns)
        else:
            await rise_above(engine, view, known)
