"""The part of the random walk that two hosts play: lend, take in, join; starts and stops."""

import contextlib
import shutil

from set_looks import compare, raw_content, read_bitmap
from set_model import Import, ModelSet, regions
from set_world import World

from iifuse import errors
from iifuse.control import protocol
from iifuse.core.ticket import TicketEntry


def brought_nothing(loan: Import | None) -> set[bool]:
    """Is an import over without a change? After a kill its bits may be more than its changes."""
    if loan is None or not loan.closed or loan.joined or loan.lower:
        return {False}
    return {True, not loan.upper}


class TwoHosts(World):
    """What `-E`, `-I` and `-J` do, and what the end of a service must leave on disk."""

    def set_of(self, name: str) -> ModelSet:
        return next(s for s in self.sets if s.name == name)

    def export(self, members: list[ModelSet]) -> None:
        request = protocol.Export(self.target(members))
        lent: list[TicketEntry] = []
        if not self.attempt(
            lambda: lent.extend(self.app.client.call(request, list[TicketEntry])),
            self.verdicts("-E", members),
        ):
            return
        for member, entry in zip(members, lent, strict=True):
            if member.copying:
                member.finish()
            member.custody = "exported"
            member.exports += 1
            assert (entry.shadow, entry.pit) == (member.name, member.pit)
            assert entry.export_number == member.exports
            assert raw_content(member.name, member.shadow).differing(member.shadow) == set()

    def take_in(self, member: ModelSet, bitmap: str) -> None:
        """A bitmap that holds changes of this export is refused; without any, or older, reused."""
        export = (member.life, member.exports)
        old = member.imports.get(bitmap)
        free = member.custody == "exported" and member.name not in self.lent
        before = self.backup.client.status()
        unused = old is None or old.export != export
        if self.attempt(
            lambda: self.backup.client.notes(protocol.Import(member.name, bitmap)),
            {free and (unused or over) for over in brought_nothing(old)},
        ):
            self.lent[member.name] = member.imports[bitmap] = Import(bitmap, export, member.pit)
        else:
            assert self.backup.client.status() == before

    def give_back(self, member: ModelSet) -> None:
        """`-d` on the backup host."""
        self.backup.disable(member.name)
        self.lent.pop(member.name).closed = True
        if member.custody == "exported":
            assert raw_content(member.name, member.shadow).differing(member.shadow) == set()

    def join(self, member: ModelSet, *, accept: bool) -> None:
        """Every import of the export, as the design asks for; a wrong one is refused."""
        for loan in list(member.imports.values()):
            current = loan.export == (member.life, member.exports) and loan.pit == member.pit
            held = member.name in self.lent and self.backup_runs
            may = current and not loan.joined and not held and (loan.closed or accept)
            request = protocol.Join(member.name, loan.path, accept)
            if self.attempt(lambda r=request: self.app.client.notes(r), {may}):
                member.custody, loan.joined = "local", True
                member.lower |= loan.lower
                member.upper |= loan.upper

    # -- starts and stops -------------------------------------------------------------------

    def restart(self, *, kill: bool) -> None:
        if kill:
            self.app.kill()
        else:
            assert self.app.stop() == 0
        for member in self.enabled:
            self._check_bitmap(member, kill)
        self.app.start()

    def _check_bitmap(self, member: ModelSet, kill: bool) -> None:
        """The disk holds every bit of the model, and more only where regions were hot."""
        header, shadow, copy = read_bitmap(f"{member.name}.bmp")
        if member.copying and header.progress.name == "IDLE":
            member.finish()
        if kill:
            member.killed()
        member.union = None
        assert header.clean is not kill
        assert member.lower <= shadow <= member.upper
        assert copy <= member.copy
        if (member.kind, member.row) == ("ind", "idle"):
            assert self.raw_differences(member) <= shadow

    def stop_backup(self, *, kill: bool) -> None:
        if kill:
            self.backup.kill()
        else:
            assert self.backup.stop() == 0
        self.backup_runs = False
        for name, loan in self.lent.items():
            if kill:
                loan.upper = regions(loan.upper, self.set_of(name).count)
            _, shadow, _ = read_bitmap(loan.path)
            assert loan.lower <= shadow <= loan.upper

    def start_backup(self) -> None:
        """An import whose set was taken back meanwhile comes back offline, and can be closed."""
        self.backup.start()
        self.backup_runs = True
        rows = {r.shadow: r for r in self.backup.client.status()}
        assert rows.keys() == self.lent.keys()
        for name in list(self.lent):
            member = self.set_of(name)
            taken_back = member.custody == "local"
            assert ("shadow" in rows[name].offline) == taken_back, rows[name].offline_reason
            if taken_back:
                self.give_back(member)

    # -- the end ----------------------------------------------------------------------------

    def take_down(self) -> None:
        """Bring every set to an end at which all of it can be checked, then remove it."""
        if not self.backup_runs:
            self.start_backup()
        for name in list(self.lent):
            self.give_back(self.set_of(name))
        self.observe()
        for member in self.enabled:
            if member.row == "to_master aborted":
                self.flip("m", False, [member], self.target([member]))
            with contextlib.suppress(errors.CopyStopped):
                self.app.wait(member.name)
        self.observe()
        for member in self.enabled:
            if member.custody == "local":
                compare(self.app.path(member.name), member.shadow, whole=True)
            compare(self.app.path(member.master.name), member.master.content, whole=True)
        self.check_raw()
        while self.enabled:
            self.disable(self.enabled[:1])
        assert self.app.client.call(protocol.Volumes(), list[protocol.VolumeStatus]) == []
        shutil.rmtree(self.place)
