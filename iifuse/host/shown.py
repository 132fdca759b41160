"""Corrects the times of files when a set comes back with a record that was not known before."""

from iifuse.core.header import Header
from iifuse.core.state import Role
from iifuse.core.times import Times
from iifuse.data.view import View
from iifuse.data.volumeset import VolumeSet
from iifuse.host.instance import Instance


async def show_later_times(instance: Instance, view: View, known: Times) -> None:
    """Let a file show later times than those in the record `known`, and record them."""
    if known.next_ns > view.times.ctime_ns:
        await instance.changed(view, known.next_ns)
    else:
        await instance.timekeeper.keep(view)


async def show_other_times(
    instance: Instance, member: VolumeSet, lost: Role, recalled: Header | None
) -> None:
    """Correct the times of a set's files after `lost` volumes were replaced, and record them.

    `recalled`: a header of the set that was missing when the files came to the mount.
    """
    views = instance.master_view(instance.family(member)), instance.views.get(member.name)
    for view in filter(None, views):
        known = view.times_in(recalled) if recalled is not None else Times()
        if lost & view.role:
            await instance.changed(view, known.next_ns)
        else:
            await show_later_times(instance, view, known)
