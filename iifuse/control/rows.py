"""The status of sets and volumes, as rows for people and scripts."""

from collections.abc import Iterable
from typing import Any

from iifuse.control.protocol import SetStatus, VolumeStatus
from iifuse.core.geometry import CHUNK_BYTES
from iifuse.core.state import Custody, Role
from iifuse.data.counting import counts
from iifuse.data.view import View
from iifuse.data.volumeset import VolumeSet
from iifuse.host import astray
from iifuse.host.instance import Instance
from iifuse.host.tickets import iso_time


async def status(instance: Instance, member: VolumeSet) -> SetStatus:
    """The row of a set. Its bits are exact counts of those in memory."""
    shadow_bits, copy_bits, changed = await counts(member)
    header, bits = member.header, member.bits
    imported = header.custody is Custody.IMPORTED
    missing = sorted({**member.returning, **member.missing}.items())
    gone = {r for r, m in missing if not m.served}
    reasons = [header.offline_reason, *(m.words(r) for r, m in missing)]
    return SetStatus(
        master=None if imported else header.master,
        shadow=header.shadow,
        bitmap=header.bitmap,
        overflow=None,
        group=member.group,
        uuid=header.uuid,
        kind=header.kind.name.lower(),  # type: ignore[arg-type]
        progress=header.progress.name.lower(),  # type: ignore[arg-type]
        copying=header.copying,
        custody=header.custody.name.lower(),  # type: ignore[arg-type]
        offline=_names(r for r in Role if r & header.offline or r in gone),
        offline_reason="; ".join(filter(None, reasons)) or None,
        size_bytes=header.size_bytes,
        chunk_bytes=CHUNK_BYTES,
        chunks=bits.chunks,
        shadow_bits=shadow_bits,
        copy_bits=copy_bits,
        percent=changed * 100 / bits.chunks,
        pit=header.pit.number,
        pit_id=header.pit.id,
        pit_time=iso_time(header.pit.time_ns) if header.pit.number else None,
        out_of_space=False,
        waiting=_names(r for r, m in missing if not m.stranger) or None,
        replaced=_names(r for r, m in missing if m.stranger) or None,
        export_number=header.export_number or None,
        copied_chunks=member.copied_chunks,
        break_write=header.policy.break_write,
        limit_s=header.policy.limit_s or None,
        unjoined=member.unjoined,
        space_percent=member.space_percent,
        ticket=member.ticket if header.custody is Custody.EXPORTED else None,
        remote=_remote(instance, member),
    )


def _remote(instance: Instance, member: VolumeSet) -> tuple[str, ...]:
    volumes = {
        Role.MASTER: instance.family(member).master,
        Role.SHADOW: member.shadow,
        Role.BITMAP: member.bitmap.volume if member.bitmap is not None else None,
    }
    return _names(role for role, v in volumes.items() if v is not None and v.remote)


def _names(roles: Iterable[Role]) -> tuple[str, ...]:
    return tuple((role.name or "").lower() for role in roles)


async def volumes(instance: Instance, mountpoint: str) -> list[VolumeStatus]:
    """The rows of all files of the mount, and of pass-through volumes that are missing."""
    rows = [_volume(instance, view, mountpoint) for view in list(instance.views.values())]
    # The database is asked only if a volume is missing: if it fails, the other rows are still told.
    kept = await instance.loop.blocking(instance.db.volumes) if instance.volumes_wait else []
    late = [path for path in kept if path not in instance.views]
    return rows + [
        VolumeStatus(path, mountpoint + path, "none", 0, 0, "waiting for the volume")
        for path in late
    ]


def _volume(instance: Instance, view: View, mountpoint: str) -> VolumeStatus:
    role: Any = "shadow" if view.path in instance.sets else "master"
    if not view.family.sets:
        role = "none"
    missing = astray.why_astray(instance, view) or None
    file = mountpoint + view.path
    return VolumeStatus(view.path, file, role, view.size_bytes, view.opens, missing)
