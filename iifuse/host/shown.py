"""The times of files on the mount when their set learns of a record that it did not know."""

from iifuse.core.header import Header
from iifuse.core.state import Role
from iifuse.core.times import Times
from iifuse.data.view import View
from iifuse.data.volumeset import VolumeSet
from iifuse.host.instance import Instance


async def show_later_times(instance: Instance, view: View, known: Times) -> None:
    """Nothing that the file has shown by that record comes again; the record is made anew."""
    if known.next_ns > view.times.ctime_ns:
        await instance.changed(view, known.next_ns)
    else:
        await instance.timekeeper.keep(view)


async def show_other_times(
    instance: Instance, member: VolumeSet, lost: Role, recalled: Header | None
) -> None:
    """The file of a volume that was replaced shows another content; all keep their times anew.

    `recalled`: a header that was not there when the files came to the mount.
    """
    views = instance.master_view(instance.family(member)), instance.views.get(member.name)
    for view in filter(None, views):
        known = view.times_in(recalled) if recalled is not None else Times()
        if lost & view.role:
            await instance.changed(view, known.next_ns)
        else:
            await show_later_times(instance, view, known)
