"""The state table: what state a set can be in, which verbs it allows, and what a refusal says."""

from dataclasses import dataclass
from enum import IntEnum, IntFlag, StrEnum

from iifuse import errors
from iifuse.units import command


class Kind(IntEnum):
    """An independent shadow is whole. A dependent one reads unchanged chunks from the master."""

    INDEPENDENT = 1
    DEPENDENT = 2


class Progress(IntEnum):
    """The direction of the copy that the copy bits belong to, whether it runs or was aborted."""

    IDLE = 0
    TO_SHADOW = 1
    TO_MASTER = 2


class Custody(IntEnum):
    """Who may write to the shadow.

    LOCAL: this service. EXPORTED: another host. IMPORTED: this service, for the host that owns it.
    """

    LOCAL = 0
    EXPORTED = 1
    IMPORTED = 2


class Role(IntFlag):
    """The volumes of a set. A combination of these flags in the header says which are offline."""

    MASTER = 1
    SHADOW = 2
    BITMAP = 4
    OVERFLOW = 8


NOTHING_OFFLINE = Role(0)


def named(roles: Role) -> str:
    """The names of some volumes for people, such as 'shadow and bitmap'."""
    return " and ".join((role.name or "").lower() for role in roles)


class Verb(StrEnum):
    """The commands that the state table knows."""

    UPDATE_SHADOW = "-u s"
    UPDATE_MASTER = "-u m"
    COPY_SHADOW = "-c s"
    COPY_MASTER = "-c m"
    DISABLE = "-d"
    EXPORT = "-E"

    @property
    def to_master(self) -> bool:
        """Does this verb restore the master?"""
        return self in (Verb.UPDATE_MASTER, Verb.COPY_MASTER)

    @property
    def is_full(self) -> bool:
        """Does this verb copy every chunk of an independent set?"""
        return self in (Verb.COPY_SHADOW, Verb.COPY_MASTER)

    @property
    def in_history(self) -> str:
        """The name of the verb in the log and in the history."""
        return _IN_HISTORY[self]


_IN_HISTORY = {
    Verb.UPDATE_SHADOW: "update of the shadow",
    Verb.UPDATE_MASTER: "restore, update of the master",
    Verb.COPY_SHADOW: "full copy to the shadow",
    Verb.COPY_MASTER: "restore, full copy to the master",
    Verb.DISABLE: "disable",
    Verb.EXPORT: "export",
}


@dataclass(frozen=True, slots=True)
class Policy:
    """What happens to a write to the master when the shadow fails or is slow.

    `break_write`: if true, the write fails and the shadow stays good. If false, the shadow goes
    offline and the write goes on. `limit_s`: seconds after which a call on the shadow counts as
    failed; 0 means that there is no limit.
    """

    break_write: bool = False
    limit_s: int = 0


PIT_VERBS = (Verb.UPDATE_SHADOW, Verb.UPDATE_MASTER, Verb.COPY_SHADOW, Verb.COPY_MASTER)


@dataclass(frozen=True, slots=True)
class SetState:
    """The part of a set's header that decides what may be done with it."""

    kind: Kind
    progress: Progress = Progress.IDLE
    copying: bool = False
    custody: Custody = Custody.LOCAL
    offline: Role = NOTHING_OFFLINE

    @property
    def bits_are_hints(self) -> bool:
        """Do the bits only say where the volumes may differ? Then extra bits do no harm.

        That is so in an idle independent set only (invariant 7).
        """
        return self.kind is Kind.INDEPENDENT and self.progress is Progress.IDLE

    @property
    def restoring(self) -> bool:
        """Is a part of the master's content still on the shadow only?"""
        return self.progress is Progress.TO_MASTER

    @property
    def is_aborted_restore(self) -> bool:
        """Was a restore aborted? Then `-u m` and `-c m` continue it and make no new PIT."""
        return self.restoring and not self.copying


class Change(IntEnum):
    """A change of whole bitmaps that may be repeated (invariant 6). A header stores it as pending.

    CLEAR: all shadow bits become 0. MERGE: the shadow bits move to the copy bitmap. FILL: all copy
    bits become 1. The last two begin a copy.
    """

    NONE = 0
    CLEAR = 1
    MERGE_TO_SHADOW = 2
    FILL_TO_SHADOW = 3
    MERGE_TO_MASTER = 4
    FILL_TO_MASTER = 5
    GIVE_UP = 6
    """Ends an aborted restore. The PIT stays, and the chunks that were not restored differ."""

    @property
    def merges(self) -> bool:
        """Does the copy bitmap gain exactly the shadow bits?"""
        return self in (Change.MERGE_TO_SHADOW, Change.MERGE_TO_MASTER)

    @property
    def progress(self) -> Progress:
        """The progress of the set after the change."""
        if self in (Change.MERGE_TO_SHADOW, Change.FILL_TO_SHADOW):
            return Progress.TO_SHADOW
        idle = self in (Change.NONE, Change.CLEAR, Change.GIVE_UP)
        return Progress.IDLE if idle else Progress.TO_MASTER

    @property
    def with_every_chunk(self) -> "Change":
        """The same change, but it copies every chunk, whatever the bits say."""
        fills = {
            Change.MERGE_TO_SHADOW: Change.FILL_TO_SHADOW,
            Change.MERGE_TO_MASTER: Change.FILL_TO_MASTER,
        }
        return fills.get(self, self)


def change_for(verb: Verb, kind: Kind) -> Change:
    """The change of the bitmaps that makes the PIT of a verb. On a dependent set `-c` is `-u`."""
    dependent = kind is Kind.DEPENDENT
    if verb in (Verb.UPDATE_SHADOW, Verb.COPY_SHADOW) and dependent:
        return Change.CLEAR
    if verb is Verb.UPDATE_SHADOW:
        return Change.MERGE_TO_SHADOW
    if verb is Verb.COPY_SHADOW:
        return Change.FILL_TO_SHADOW
    if verb is Verb.UPDATE_MASTER or dependent:
        return Change.MERGE_TO_MASTER
    return Change.FILL_TO_MASTER


def check(name: str, state: SetState, verb: Verb, ticket: str | None = None) -> None:
    """Raise Refused or CopyRunning unless `state` allows `verb`.

    `name` is the set's name, for the message. `ticket` is the path of its ticket, if it is exported
    and has one.
    """
    _check_custody(name, state, verb, ticket)
    if verb in PIT_VERBS:
        _check_pit(name, state, verb)
    elif state.restoring:
        why = f"{verb} is not possible {_doing(state)}"
        raise errors.Refused(name, why, how_to_end_copy(name, state))
    elif verb is Verb.EXPORT:
        _check_export(name, state)
    elif state.copying:
        why = f"{verb} is not possible {_doing(state)}"
        raise errors.CopyRunning(name, why, how_to_end_copy(name, state))


def restores_already(name: str, verb: str, other: str, state: SetState) -> errors.CopyRunning:
    """The error of a verb while another set restores the same master.

    During a restore the raw master shows no point in time, so nothing else may begin from it.
    `name`: the set or volume of the verb. `other` and `state`: name and state of the set that
    restores the master.
    """
    now = f"{other} restores the same master" if state.copying else (
        f"a restore of the same master from {other} stands aborted"
    )  # fmt: skip
    why = f"{verb} is not possible while {now}"
    return errors.CopyRunning(name, why, how_to_end_copy(other, state))


def check_known(name: str, state: SetState, export_number: int) -> None:
    """Raise Refused when an exported set does not know its export any more.

    That is so after its bitmap volume was lost: only that volume knew the export's number.
    """
    if state.custody is Custody.EXPORTED and not export_number:
        raise errors.Refused(
            name,
            "is exported, and its bitmap volume is lost, which knew which export that is",
            how_to_end_custody(name, state),
        )


def _check_custody(name: str, state: SetState, verb: Verb, ticket: str | None) -> None:
    if verb is Verb.DISABLE or state.custody is Custody.LOCAL:
        return
    if state.custody is Custody.IMPORTED:
        raise errors.Refused(
            name, f"{verb} is not possible on an imported shadow", how_to_end_custody(name, state)
        )
    raise errors.Refused(
        name,
        f"{verb} is not possible while the shadow is exported",
        how_to_end_custody(name, state, ticket),
    )


def _check_pit(name: str, state: SetState, verb: Verb) -> None:
    if state.offline:
        names = named(state.offline)
        raise errors.Refused(
            name, f"{verb} is not possible with {names} offline", how_to_bring_back(name, state)
        )
    other_way = state.progress is not Progress.IDLE and state.restoring is not verb.to_master
    if other_way or (state.restoring and state.copying):
        error = errors.CopyRunning if state.copying else errors.Refused
        raise error(name, f"{verb} is not possible {_doing(state)}", how_to_end_copy(name, state))


def _check_export(name: str, state: SetState) -> None:
    if state.kind is Kind.DEPENDENT:
        raise errors.Refused(
            name, "a dependent shadow cannot be exported", "only an independent one is whole"
        )
    if state.progress is not Progress.IDLE:
        why = f"-E is not possible {_doing(state)}"
        raise errors.CopyRunning(name, why, how_to_end_copy(name, state))
    if state.offline:
        raise errors.Refused(
            name, "-E is not possible with a volume offline", how_to_bring_back(name, state)
        )


def _doing(state: SetState) -> str:
    where = "master" if state.restoring else "shadow"
    return f"while a copy to the {where} " + ("runs" if state.copying else "stands aborted")


def how_to_end_copy(name: str, state: SetState) -> str:
    """The commands that end the copy of a set, for people."""
    if state.copying:
        wait, abort = command("iiadm -w", name), command("iiadm -a", name)
        return f"wait for it with {wait}, or abort it with {abort}"
    if state.offline:
        return how_to_bring_back(name, state)
    if not state.restoring:
        return f"finish it first with {command('iiadm -u s', name)}"
    finish, give_up = command("iiadm -u m", name), command("iiadm --give-up", name)
    return f"finish it first with {finish}, or give it up with {give_up}"


def how_to_bring_back(name: str, state: SetState) -> str:
    """The commands that bring back a volume that is offline, for people."""
    reset = command("iiadm -R", name)
    if state.is_aborted_restore:
        finish, give_up = command("iiadm -u m", name), command("iiadm --give-up", name)
        return (
            f"bring back what is offline with {reset} and finish the restore with {finish}; if "
            f"that cannot be, give it up with {give_up}"
        )
    return f"bring it back with {reset}; {command('iiadm -i', name)} says why it is offline"


def how_to_do_without(name: str, state: SetState) -> str:
    """What can still be done when a volume will not come back, for people."""
    disable = f"disable the set with {command('iiadm -d', name)}"
    if not state.restoring:
        return disable
    return f"give the restore up with {command('iiadm --give-up', name)}, then {disable}"


def how_to_copy(name: str) -> str:
    """The commands that copy the chunks that count as different, for people."""
    to_shadow, to_master = command("iiadm -u s", name), command("iiadm -u m", name)
    return f"{to_shadow} copies them to the shadow, {to_master} to the master"


def how_to_end_custody(name: str, state: SetState, ticket: str | None = None) -> str:
    """The commands that end the export or import of a shadow, for people.

    `ticket`: the path of the ticket of the export, if it is known.
    """
    if state.custody is Custody.IMPORTED:
        end = command("iiadm -d", name)
        return f"disable it here with {end}, and join it on the host that exported it"
    reset = command("iiadm -R", name)
    if ticket is None or state.offline & Role.BITMAP:
        return f"take it back with {reset}, which counts all its chunks as different"
    join = command("iijoin", ticket)
    return f"join it first with {join}; if the other host is lost, take it back with {reset}"
