"""One volume set: its header, its bits and its open volumes."""

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

import trio

from iifuse import errors
from iifuse.core.bits import Bits
from iifuse.core.geometry import Geometry
from iifuse.core.header import Header
from iifuse.core.missing import Lack, Missing, check_whole, hides_shadow, without_bits
from iifuse.core.state import Kind, Policy, Progress, Role, SetState, Verb, check, named
from iifuse.core.touch import Member
from iifuse.data import bitwrites
from iifuse.data.bitwrites import Write
from iifuse.loop.limitedcalls import LimitedCalls
from iifuse.loop.loop import Loop
from iifuse.store.bitmapfile import BitmapFile
from iifuse.store.headerlog import HeaderLog
from iifuse.store.volume import Volume
from iifuse.units import Run

log = logging.getLogger(__name__)

T = TypeVar("T")


class VolumeSet:
    """Master, shadow and bitmap volume. A set is named by the path of its shadow.

    `shadow` is None while the set is exported, or if the volume could not be opened. `bitmap` is
    None if the volume could not be opened. The header in memory is always one that was committed.
    """

    def __init__(
        self, loop: Loop, log: HeaderLog, bits: Bits, shadow: Volume | None,
        group: str | None = None,
    ) -> None:  # fmt: skip
        self.loop: Final = loop
        self.log = log
        self.missing: dict[Role, Missing] = {}
        """Volumes that are waited for or were replaced (`miss`). None of this is durable."""
        self.returning: Lack = {}
        """Volumes that are taken back just now. They count as missing for people until the files
        are on the mount."""
        self.adopt(log.header)
        self.key: Final = log.header.uuid
        self.bits, self.shadow = bits, shadow
        self.group = group
        self.copied_chunks = 0
        """How many copy bits were cleared since the PIT, by the background copy or for writers."""
        self.recovered: list[str] = []
        """What the start has repaired in this set, for the history."""
        self.bits_known = True
        """False: the bitmap volume was not believed, and the bits are what is safe to assume."""
        self.in_use = False
        """Does the header on disk say that the set is in use? Not before somebody could write."""
        self.tell: Callable[..., None] = lambda *_, **__: None
        """Adds an event to the history (History.tell)."""
        self.unjoined: tuple[str, ...] = ()
        """The bitmaps of known imports of the last export that are not joined (host.unjoined)."""
        self.ticket: str | None = None
        """The path of the ticket, while the set is exported."""
        self.space_percent: int | None = None
        """How full the file system of a sparse shadow is, in percent."""
        self.shadow_calls = LimitedCalls(loop)
        """Calls on the shadow, within the time limit of the policy."""
        self.header_lock = trio.Lock()
        """Held while the header is changed, until memory has the new one."""

    @property
    def name(self) -> str:
        """The path of the shadow."""
        return self.header.shadow

    @property
    def header(self) -> Header:
        """The header that counts."""
        return self._header

    @property
    def bitmap(self) -> BitmapFile | None:
        """The bitmap volume; None: it could not be opened."""
        return self.log.bitmap

    @property
    def unnoted(self) -> bool:
        """It went offline and that could not be noted anywhere. Writes that need a bit get EIO."""
        return self.log.is_unnoted

    def amend(self, header: Header) -> None:
        """Change the header in memory only. The next commit writes it to the disk."""
        self.adopt(self.log.amend(header))

    def adopt(self, header: Header) -> None:
        """Let this header count. It is durable, or it stands in for one that is missing."""
        self._header = header
        self.state: SetState = header.state
        """The state in the header. It is kept here because every first touch asks for it."""
        self.is_lost = bool(header.offline & (Role.SHADOW | Role.BITMAP))
        """Is the shadow or the bitmap offline? Then writes to the master do not need this set."""
        self._is_plain = not header.policy.limit_s and not self.state.restoring
        for role in list(self.missing):
            if role & header.offline and not self.missing[role].served:
                del self.missing[role]  # it was waited for, and that is over
        self.is_hidden = hides_shadow(self.state, self.missing)

    # -- volumes that are not there ---------------------------------------------------------

    def miss(self, role: Role, missing: Missing | None) -> None:
        """Note that a volume is missing, or (None) that it is there again. It is logged once."""
        before = self.missing.pop(role, None)
        if missing is not None and not (role & self.state.offline and not missing.served):
            self.missing[role] = missing
            if missing != before:
                log.warning("%s: %s", self.name, missing.words(role))
                self.tell(self.header, "volume missing", why=missing.words(role))
        elif before is not None:
            log.info("%s: its %s is back", self.name, (role.name or "").lower())
            self.tell(self.header, "volume back", why=f"the {(role.name or '').lower()}")
        self.is_hidden = hides_shadow(self.state, self.missing)

    def lacks(self, role: Role) -> bool:
        """Is a volume missing, so that it cannot be used?"""
        return role in self.missing and not self.missing[role].served

    @property
    def why_hidden(self) -> str:
        """Why the shadow cannot be read or written, for people."""
        lacking = (m.words(role) for role, m in self.missing.items() if not m.served)
        return next(lacking, self.header.offline_reason or "offline")

    def check_whole(self, verb: str) -> None:
        """Raise Refused while a volume of the set is missing."""
        check_whole(self.name, self.missing, verb)

    async def wait_no_longer(self, role: Role, reason: str) -> None:
        """Stop waiting for a volume: note durably that it is lost."""
        if role is not Role.BITMAP:
            await self.take_offline(role, reason)
            return
        log.error("%s: it does not wait for its bitmap any more: %s", self.name, reason)
        self.tell(self.header, "offline", why=f"the bitmap, which was missing: {reason}")
        await self.loop.blocking(partial(self.log.note_elsewhere, reason))
        roles, self.bits = without_bits(self.state, self.bits.chunks)
        self.bits_known = False
        progress = self.header.progress if self.restoring else Progress.IDLE
        self.amend(replace(
            self.header, offline=self.state.offline | roles, offline_reason=reason, copying=False,
            progress=progress,
        ))  # fmt: skip

    @property
    def geometry(self) -> Geometry:
        """How the volumes of the set are cut into chunks."""
        return self.header.geometry

    @property
    def restoring(self) -> bool:
        """Is a part of the master's content still on the shadow only?"""
        return self.header.progress is Progress.TO_MASTER

    @property
    def policy(self) -> Policy:
        """What a failing or slow shadow means for writes to the master."""
        return self.header.policy

    def check(self, verb: Verb) -> None:
        """Raise Refused, CopyRunning or Busy unless the set allows the verb now."""
        if verb is Verb.DISABLE and self.is_beyond_repair:
            return
        if verb is not Verb.DISABLE:
            self.check_whole(verb)
        check(self.name, self.state, verb, self.ticket)
        self.check_answering()

    @property
    def is_beyond_repair(self) -> bool:
        """Can the restore of this dependent set not be finished any more?

        That is so if its bits are lost: nobody knows which chunks of the master are right. The
        shadow holds only preserved chunks, so it cannot be copied as a whole either. If the bitmap
        volume is only missing, it may still come back.
        """
        if not self.restoring or self.state.offline & Role.MASTER:  # then -R gives the restore up
            return False
        unknown = not self.bits_known or self.lacks(Role.BITMAP)
        return self.header.kind is Kind.DEPENDENT and unknown

    @property
    def stuck(self) -> bool:
        """Does a call on the shadow still run that took too long and was given up?"""
        return self.shadow_calls.hang

    def check_answering(self) -> None:
        """Raise Busy while a call that was given up may still write to the shadow."""
        if self.stuck:
            raise errors.Busy(
                self.name, "a call on it has not come back yet", "see to its disk, then try again"
            )

    async def try_shadow(self) -> None:
        """Sync the shadow before a verb syncs it under the gate. Raises Busy when it hangs.

        Other failures are ignored: the verb will meet them itself.
        """
        if self.shadow is not None and self.policy.limit_s:
            with suppress(OSError):
                await self.within_limit(self.shadow.sync)
        self.check_answering()

    @property
    def answers_at_once(self) -> bool:
        """Can a first touch be done without waiting?

        It may have to wait in a restore, and for a volume that has a limit, is remote or missing.
        """
        return self._is_plain and not (self.stuck or self.unnoted or self.missing or self.remote)

    @property
    def remote(self) -> bool:
        """Is the shadow or the bitmap volume remote?"""
        bitmap = self.bitmap.volume if self.bitmap is not None else None
        return any(volume is not None and volume.remote for volume in (self.shadow, bitmap))

    @property
    def needs_nothing(self) -> bool:
        """May the master be written without looking at this set? Yes, if the set is lost."""
        return self.is_lost and not self.restoring and not self.unnoted

    @property
    def member(self) -> Member:
        """The set as the plan sees it."""
        return Member(self.key, self.state, self.bits)

    async def commit(self, **changes: Any) -> None:
        """Change these fields of the header durably (HeaderLog.commit).

        Raises OSError; then nothing has changed.
        """
        async with self.header_lock:
            if self.bitmap is None:
                self.adopt(self.log.commit(**changes))
            else:
                self.adopt(await self.loop.blocking(partial(self.log.commit, **changes)))

    async def within_limit(self, call: Callable[[], T]) -> T:
        """Make a call on the shadow within the policy's time limit. Raises OSError after that."""
        return await self.shadow_calls.blocking(call, self.policy.limit_s, self.name)

    async def note(self, **changes: Any) -> None:
        """Change these fields of the header durably. If that fails, the bitmap goes offline."""
        try:
            await self.commit(**changes)
        except OSError as error:
            await self.take_offline(Role.BITMAP, errors.words(error))

    async def end_copy(self) -> None:
        """Note durably that the copy is aborted."""
        await self.note(copying=False)

    @property
    def keeps_times(self) -> bool:
        """Does its header record times? If not, its files count as written at the next start."""
        return self.bitmap is not None and not self.state.offline & Role.BITMAP

    async def take_offline(self, role: Role, reason: str) -> None:
        """Note durably that a volume of the set cannot be relied on any more (invariant 9)."""
        if self.lacks(Role.BITMAP):
            await self.wait_no_longer(Role.BITMAP, reason)
        roles = self.state.offline | self._offline_with(role)
        if roles == self.state.offline:
            return
        log.error("%s: %s goes offline: %s", self.name, role.name, reason)
        self.tell(self.header, "offline", why=f"the {named(role)}: {reason}")
        changes = {"offline": roles, "offline_reason": reason, "copying": False}
        try:
            await self.commit(**changes)
        except OSError as error:
            changes["offline"] = roles | self._offline_with(Role.BITMAP)
            log.error("%s: its header cannot be written: %s", self.name, error)  # noqa: TRY400
            await self.note_again(**changes)

    async def note_again(self, **changes: Any) -> None:
        """Write header and bits again, or note in the state database that they are in doubt.

        This is for a header whose write failed, and for bits that changed after an offline header.
        The header in memory changes only when the note is durable, because writes go on without
        this set as soon as memory says that it is offline.
        """
        async with self.header_lock:  # else older sectors could be written last
            try:
                await self._write_anew(changes)
            except OSError as error:
                reason = changes.get("offline_reason", self.header.offline_reason)
                why = f"{reason}; nor can its bitmap ({errors.words(error)})"
                await self.loop.blocking(partial(self.log.note_elsewhere, why))
                header = replace(self.header, **changes)
                self.amend(replace(header, offline=header.offline | self.state.offline))

    async def _write_anew(self, changes: dict[str, Any]) -> None:
        """Write header and bits, and again if writes have marked chunks meanwhile."""
        extents, written = bitwrites.everything(self.bits, self.log), None
        while extents != written:
            header = await self.loop.blocking(partial(self.log.write_anew, extents, **changes))
            extents, written = bitwrites.everything(self.bits, self.log), extents
        self.adopt(header)

    def has(self, volume: Volume) -> bool:
        """Is this volume the shadow or the bitmap of the set?"""
        return volume is self.shadow or (self.bitmap is not None and volume is self.bitmap.volume)

    async def take_offline_by_path(self, path: str, reason: str) -> None:
        """Take the volume with this path offline, if it is one of the set's (invariant 9)."""
        if self.shadow is not None and self.shadow.path == path:
            await self.take_offline(Role.SHADOW, reason)
        elif self.bitmap is not None and self.bitmap.volume.path == path:
            await self.take_offline(Role.BITMAP, reason)

    def _offline_with(self, role: Role) -> Role:
        """The volumes that go offline with a volume: often a shadow is unreadable without bits."""
        exact = self.state.kind is Kind.DEPENDENT or self.state.progress is not Progress.IDLE
        return role | Role.SHADOW if role & Role.BITMAP and exact else role

    def mark(self, runs: Sequence[Run], ahead: Sequence[int]) -> Write:
        """Begin to mark chunks. The result writes the sectors without a sync, in a thread."""
        return bitwrites.mark(self.bits, self.log, runs, ahead)

    def settle(self, runs: Sequence[Run], ahead: Sequence[int]) -> None:
        """Let memory follow a mark that is durable now (Bits.settle)."""
        self.count_copied(runs)
        self.bits.settle(runs, ahead)

    def clear(self, runs: Sequence[Run]) -> Write:
        """Set copy bits to 0 in memory. The result writes them without a sync, in a thread."""
        return bitwrites.clear(self.bits, self.log, runs)

    async def save_exact(self, **changes: Any) -> None:
        """Write the exact bits, and then change these fields of the header (HeaderLog.commit).

        Raises OSError; then the bitmap is offline.
        """
        self.bits.cool_all()
        write = partial(bitwrites.write_exact, self.bits, self.log, self.key)
        try:
            await self.loop.blocking(write)
            await self.commit(**changes)
        except OSError as error:
            await self.take_offline(Role.BITMAP, errors.words(error))
            raise

    async def renew_bits(self) -> None:
        """Compute `ready` again after whole bitmaps have changed. The caller holds the gate."""
        bits = self.bits
        self.bits = await self.loop.blocking(partial(Bits, bits.shadow, bits.copy))

    def count_copied(self, runs: Iterable[Run]) -> None:
        """Count the copy bits of these runs, which are about to be cleared, as copied chunks."""
        for run in runs:
            self.copied_chunks += self.bits.copy.word(*run).bit_count()

    def close(self) -> None:
        """Close the shadow and the bitmap volume. The master belongs to the family."""
        if self.shadow is not None:
            self.shadow.close()
        if self.bitmap is not None:
            self.bitmap.volume.close()
