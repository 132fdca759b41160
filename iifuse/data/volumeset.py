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
    """Master, shadow and bitmap volume, named by the shadow's path.

    `shadow` is None while the volume is exported or could not be opened; `bitmap` is None when it
    could not be opened. The header in memory is always one that was committed.
    """

    def __init__(
        self, loop: Loop, log: HeaderLog, bits: Bits, shadow: Volume | None,
        group: str | None = None,
    ) -> None:  # fmt: skip
        self.loop: Final = loop
        self.log = log
        self.missing: dict[Role, Missing] = {}
        """Volumes that are waited for or were replaced (`miss`); nothing of it is durable."""
        self.returning: Lack = {}
        """What is being taken back: people are told so when the files are on the mount."""
        self.adopt(log.header)
        self.key: Final = log.header.uuid
        self.bits, self.shadow = bits, shadow
        self.group = group
        self.copied_chunks = 0
        """Copy bits cleared since the PIT, by the background copy or for a writer."""
        self.recovered: list[str] = []
        """What the start had to do about it, for the history."""
        self.bits_known = True
        """If not, the start did not believe the bitmap volume, and the bits are the safe ones."""
        self.in_use = False
        """Does the header on disk say so? Not while nobody could write to any of the volumes."""
        self.tell: Callable[..., None] = lambda *_, **__: None
        """Lets the history know (History.tell)."""
        self.unjoined: tuple[str, ...] = ()
        """Bitmaps of imports of the last export that are known and not joined (unjoined)."""
        self.ticket: str | None = None
        """Where that of the last export lies, while the set is exported."""
        self.space_percent: int | None = None
        """How full the file system of a sparse shadow is."""
        self.shadow_calls = LimitedCalls(loop)
        """Calls on the shadow, within the time limit of the policy."""
        self.header_lock = trio.Lock()
        """Held by who writes the header: from what is in memory to what is to be there."""

    @property
    def name(self) -> str:
        """The shadow's path."""
        return self.header.shadow

    @property
    def header(self) -> Header:
        """The one that counts."""
        return self._header

    @property
    def bitmap(self) -> BitmapFile | None:
        """None when its volume could not be opened."""
        return self.log.bitmap

    @property
    def unnoted(self) -> bool:
        """It went offline and that could be noted nowhere: writes that need a bit get EIO."""
        return self.log.is_unnoted

    def amend(self, header: Header) -> None:
        """Change the header in memory: it stands on the disk with the next commit."""
        self.adopt(self.log.amend(header))

    def adopt(self, header: Header) -> None:
        """From now on this header counts: it is durable, or stands for one that is away."""
        self._header = header
        self.state: SetState = header.state
        """What decides over verbs and write order; every first touch asks for it."""
        self.is_lost = bool(header.offline & (Role.SHADOW | Role.BITMAP))
        """Is the shadow or the bitmap offline? Then writes of others need nothing of this set."""
        self._is_plain = not header.policy.limit_s and not self.state.restoring
        for role in list(self.missing):
            if role & header.offline and not self.missing[role].served:
                del self.missing[role]  # it was waited for, and that is over
        self.is_hidden = hides_shadow(self.state, self.missing)

    # -- volumes that are not there ---------------------------------------------------------

    def miss(self, role: Role, missing: Missing | None) -> None:
        """Note that a volume is not there, or (None) is there again. People are told once."""
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
        """Can a volume not be used because it is not there?"""
        return role in self.missing and not self.missing[role].served

    @property
    def why_hidden(self) -> str:
        """Why the shadow cannot be read, or written, for people."""
        lacking = (m.words(role) for role, m in self.missing.items() if not m.served)
        return next(lacking, self.header.offline_reason or "offline")

    def check_whole(self, verb: str) -> None:
        """Raise Refused while a volume of the set is missing."""
        check_whole(self.name, self.missing, verb)

    async def give_up(self, role: Role, reason: str) -> None:
        """Count a volume that was waited for as lost, durably before anything relies on that."""
        if role is not Role.BITMAP:
            await self.take_offline(role, reason)
            return
        log.error("%s: its bitmap is waited for no more: %s", self.name, reason)
        self.tell(self.header, "offline", why=f"the bitmap, which is waited for no more: {reason}")
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
        """How the set is cut into chunks."""
        return self.header.geometry

    @property
    def restoring(self) -> bool:
        """Is part of the master's truth on the shadow?"""
        return self.header.progress is Progress.TO_MASTER

    @property
    def policy(self) -> Policy:
        """What a failing or slow shadow means for the master's writers."""
        return self.header.policy

    def check(self, verb: Verb) -> None:
        """Raise Refused, CopyRunning or Busy unless the set allows the verb at this moment."""
        if verb is Verb.DISABLE and self.is_beyond_repair:
            return
        if verb is not Verb.DISABLE:
            self.check_whole(verb)
        check(self.name, self.state, verb, self.ticket)
        self.check_answering()

    @property
    def is_beyond_repair(self) -> bool:
        """Is this a restore that nobody can finish? Which chunks of the master are right was lost.

        The shadow holds only what was preserved, so it cannot be copied as a whole either. A bitmap
        volume that is waited for may still know.
        """
        if not self.restoring or self.state.offline & Role.MASTER:  # -R gives a restore up then
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
        """Sync the shadow before a verb does it under the gate. Raises Busy when it hangs.

        Any other failure the verb will find by itself.
        """
        if self.shadow is not None and self.policy.limit_s:
            with suppress(OSError):
                await self.within_limit(self.shadow.sync)
        self.check_answering()

    @property
    def answers_at_once(self) -> bool:
        """Can nothing of a first touch have to wait? Not so for a slow shadow, or in a restore."""
        return self._is_plain and not (self.stuck or self.unnoted or self.missing or self.remote)

    @property
    def remote(self) -> bool:
        """Is its shadow or its bitmap remote?"""
        bitmap = self.bitmap.volume if self.bitmap is not None else None
        return any(volume is not None and volume.remote for volume in (self.shadow, bitmap))

    @property
    def needs_nothing(self) -> bool:
        """May the master be written whatever this set's bits are? Yes if the set is lost."""
        return self.is_lost and not self.restoring and not self.unnoted

    @property
    def member(self) -> Member:
        """The set as the plan sees it."""
        return Member(self.key, self.state, self.bits)

    async def commit(self, **changes: Any) -> None:
        """As HeaderLog.commit. Raises OSError, and changes nothing then."""
        async with self.header_lock:
            if self.bitmap is None:
                self.adopt(self.log.commit(**changes))
            else:
                self.adopt(await self.loop.blocking(partial(self.log.commit, **changes)))

    async def within_limit(self, call: Callable[[], T]) -> T:
        """Run a call on the shadow for as long as the policy allows. Raises OSError after that."""
        return await self.shadow_calls.blocking(call, self.policy.limit_s, self.name)

    async def note(self, **changes: Any) -> None:
        """Commit a header with these fields changed; where that fails, the bitmap is lost."""
        try:
            await self.commit(**changes)
        except OSError as error:
            await self.take_offline(Role.BITMAP, errors.words(error))

    async def end_copy(self) -> None:
        """The copy stands aborted from now on."""
        await self.note(copying=False)

    @property
    def keeps_times(self) -> bool:
        """Does its header keep times? If not, its files count as written at the next start."""
        return self.bitmap is not None and not self.state.offline & Role.BITMAP

    async def take_offline(self, role: Role, reason: str) -> None:
        """Note durably that a volume of the set cannot be trusted (invariant 9)."""
        if self.lacks(Role.BITMAP):
            await self.give_up(Role.BITMAP, reason)
        roles = self.state.offline | self._drags(role)
        if roles == self.state.offline:
            return
        log.error("%s: %s goes offline: %s", self.name, role.name, reason)
        self.tell(self.header, "offline", why=f"the {named(role)}: {reason}")
        changes = {"offline": roles, "offline_reason": reason, "copying": False}
        try:
            await self.commit(**changes)
        except OSError as error:
            changes["offline"] = roles | self._drags(Role.BITMAP)
            log.error("%s: its header cannot be written: %s", self.name, error)  # noqa: TRY400
            await self.note_again(**changes)

    async def note_again(self, **changes: Any) -> None:
        """Write header and bits anew, or note elsewhere: the header failed, or bits have changed.

        The header in memory changes when the note is durable and not before: whoever sees the set
        offline writes on without it.
        """
        async with self.header_lock:  # or an older one's sectors may come last
            try:
                await self._write_anew(changes)
            except OSError as error:
                reason = changes.get("offline_reason", self.header.offline_reason)
                why = f"{reason}; nor can its bitmap ({errors.words(error)})"
                await self.loop.blocking(partial(self.log.note_elsewhere, why))
                header = replace(self.header, **changes)
                self.amend(replace(header, offline=header.offline | self.state.offline))

    async def _write_anew(self, changes: dict[str, Any]) -> None:
        """With what writes have marked meanwhile."""
        extents, written = bitwrites.everything(self.bits, self.log), None
        while extents != written:
            header = await self.loop.blocking(partial(self.log.write_anew, extents, **changes))
            extents, written = bitwrites.everything(self.bits, self.log), extents
        self.adopt(header)

    def has(self, volume: Volume) -> bool:
        """Is it the shadow or the bitmap of this set?"""
        return volume is self.shadow or (self.bitmap is not None and volume is self.bitmap.volume)

    async def take_offline_by_path(self, path: str, reason: str) -> None:
        """A sync of a volume failed: if it is ours, nobody knows what it holds (invariant 9)."""
        if self.shadow is not None and self.shadow.path == path:
            await self.take_offline(Role.SHADOW, reason)
        elif self.bitmap is not None and self.bitmap.volume.path == path:
            await self.take_offline(Role.BITMAP, reason)

    def _drags(self, role: Role) -> Role:
        """A bitmap whose bits are needed to read the shadow takes the shadow with it."""
        exact = self.state.kind is Kind.DEPENDENT or self.state.progress is not Progress.IDLE
        return role | Role.SHADOW if role & Role.BITMAP and exact else role

    def mark(self, runs: Sequence[Run], ahead: Sequence[int]) -> Write:
        """Begin to mark; the result writes the sectors, in a thread, unsynced."""
        return bitwrites.mark(self.bits, self.log, runs, ahead)

    def settle(self, runs: Sequence[Run], ahead: Sequence[int]) -> None:
        """A mark is durable (Bits.settle): in memory it counts only now."""
        self.count_copied(runs)
        self.bits.settle(runs, ahead)

    def clear(self, runs: Sequence[Run]) -> Write:
        """Copy bits := 0 in memory; the result writes their sectors, in a thread, unsynced."""
        return bitwrites.clear(self.bits, self.log, runs)

    async def save_exact(self, **changes: Any) -> None:
        """Write the exact bits and commit a header with these fields changed (HeaderLog.commit).

        Raises OSError; the bitmap is offline then.
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
        """Work out anew what is ready, under the gate, after whole bitmaps have changed."""
        bits = self.bits
        self.bits = await self.loop.blocking(partial(Bits, bits.shadow, bits.copy))

    def count_copied(self, runs: Iterable[Run]) -> None:
        """Copy bits of these runs are about to be cleared: the copy has brought so many chunks."""
        for run in runs:
            self.copied_chunks += self.bits.copy.word(*run).bit_count()

    def close(self) -> None:
        """Give up the volumes of the set; the master belongs to the family."""
        if self.shadow is not None:
            self.shadow.close()
        if self.bitmap is not None:
            self.bitmap.volume.close()
