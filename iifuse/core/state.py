"""What a set is, which verbs its state allows, and what a refusal says: the state table."""

from dataclasses import dataclass
from enum import IntEnum, IntFlag, StrEnum

from iifuse import errors
from iifuse.units import command


class Kind(IntEnum):
    """Whole by itself, or reading unchanged chunks from the master."""

    INDEPENDENT = 1
    DEPENDENT = 2


class Progress(IntEnum):
    """Direction of the copy whose copy bits are kept, running or aborted."""

    IDLE = 0
    TO_SHADOW = 1
    TO_MASTER = 2


class Custody(IntEnum):
    """Who may write the shadow: this service, another host, or we for another host."""

    LOCAL = 0
    EXPORTED = 1
    IMPORTED = 2


class Role(IntFlag):
    """The parts of a set; as a flag in the header: which of them are offline."""

    MASTER = 1
    SHADOW = 2
    BITMAP = 4
    OVERFLOW = 8


NOTHING_OFFLINE = Role(0)


def named(roles: Role) -> str:
    """'shadow and bitmap', for people."""
    return " and ".join((role.name or "").lower() for role in roles)


class Verb(StrEnum):
    """The commands that the state table speaks of."""

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
        """Does it copy every chunk, of an independent set?"""
        return self in (Verb.COPY_SHADOW, Verb.COPY_MASTER)

    @property
    def told(self) -> str:
        """What log and history say of it."""
        return _TOLD[self]


_TOLD = {
    Verb.UPDATE_SHADOW: "update of the shadow",
    Verb.UPDATE_MASTER: "restore, update of the master",
    Verb.COPY_SHADOW: "full copy to the shadow",
    Verb.COPY_MASTER: "restore, full copy to the master",
    Verb.DISABLE: "disable",
    Verb.EXPORT: "export",
}


@dataclass(frozen=True, slots=True)
class Policy:
    """What a shadow that fails, or is slow, means for a write to the master.

    `break_write`: the writer gets the error and the shadow stays good; else the shadow goes
    offline and the write goes on. `limit_s`: seconds after which a call on the shadow counts as
    failed; 0: it is waited for.
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
    def restoring(self) -> bool:
        """Is the master's truth in part on the shadow?"""
        return self.progress is Progress.TO_MASTER

    @property
    def resumes(self) -> bool:
        """Is it an aborted restore? `-u m` and `-c m` go on with it and make no new PIT."""
        return self.restoring and not self.copying


class Change(IntEnum):
    """A whole-bitmap change that may be repeated (invariant 6); stored in a header as pending."""

    NONE = 0
    CLEAR = 1
    MERGE_TO_SHADOW = 2
    FILL_TO_SHADOW = 3
    MERGE_TO_MASTER = 4
    FILL_TO_MASTER = 5
    GIVE_UP = 6
    """Ends an aborted restore: no new PIT, and what it has still to bring counts as different."""

    @property
    def merges(self) -> bool:
        """Does the copy bitmap gain just the shadow bits?"""
        return self in (Change.MERGE_TO_SHADOW, Change.MERGE_TO_MASTER)

    @property
    def progress(self) -> Progress:
        """The progress of the set after the change."""
        if self in (Change.MERGE_TO_SHADOW, Change.FILL_TO_SHADOW):
            return Progress.TO_SHADOW
        idle = self in (Change.NONE, Change.CLEAR, Change.GIVE_UP)
        return Progress.IDLE if idle else Progress.TO_MASTER

    @property
    def whole(self) -> "Change":
        """The same change, but with every chunk, whatever the bits say."""
        fills = {
            Change.MERGE_TO_SHADOW: Change.FILL_TO_SHADOW,
            Change.MERGE_TO_MASTER: Change.FILL_TO_MASTER,
        }
        return fills.get(self, self)


def change_for(verb: Verb, kind: Kind) -> Change:
    """The bitmap change that makes the PIT of a verb. On a dependent set `-c` is `-u`."""
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
    """Raise Refused or CopyRunning unless `state` allows `verb`. `name`: the set's, for people.

    `ticket`: where that of the export lies, if there is one.
    """
    _check_custody(name, state, verb, ticket)
    if verb in PIT_VERBS:
        _check_pit(name, state, verb)
    elif state.restoring:
        raise errors.Refused(name, f"{verb} is not possible {_doing(state)}", way_out(name, state))
    elif verb is Verb.EXPORT:
        _check_export(name, state)
    elif state.copying:
        why = f"{verb} is not possible {_doing(state)}"
        raise errors.CopyRunning(name, why, way_out(name, state))


def restores_already(name: str, verb: str, other: str, state: SetState) -> errors.CopyRunning:
    """The refusal of a verb while another set restores the master: raw, that is no point in time.

    `name`: what the verb is for. `other`, `state`: of the set that restores the master.
    """
    now = f"{other} restores the same master" if state.copying else (
        f"a restore of the same master from {other} stands aborted"
    )  # fmt: skip
    why = f"{verb} is not possible while {now}"
    return errors.CopyRunning(name, why, way_out(other, state))


def check_known(name: str, state: SetState, export_number: int) -> None:
    """Raise Refused when an exported set has lost its bitmap, which alone knew the export."""
    if state.custody is Custody.EXPORTED and not export_number:
        raise errors.Refused(
            name,
            "is exported, and its bitmap volume is lost, which knew which export that is",
            way_home(name, state),
        )


def _check_custody(name: str, state: SetState, verb: Verb, ticket: str | None) -> None:
    if verb is Verb.DISABLE or state.custody is Custody.LOCAL:
        return
    if state.custody is Custody.IMPORTED:
        raise errors.Refused(
            name, f"{verb} is not possible on an imported shadow", way_home(name, state)
        )
    raise errors.Refused(
        name,
        f"{verb} is not possible while the shadow is exported",
        way_home(name, state, ticket),
    )


def _check_pit(name: str, state: SetState, verb: Verb) -> None:
    if state.offline:
        names = named(state.offline)
        raise errors.Refused(
            name, f"{verb} is not possible with {names} offline", way_back(name, state)
        )
    turned = state.progress is not Progress.IDLE and state.restoring is not verb.to_master
    if turned or (state.restoring and state.copying):
        error = errors.CopyRunning if state.copying else errors.Refused
        raise error(name, f"{verb} is not possible {_doing(state)}", way_out(name, state))


def _check_export(name: str, state: SetState) -> None:
    if state.kind is Kind.DEPENDENT:
        raise errors.Refused(
            name, "a dependent shadow cannot be exported", "only an independent one is whole"
        )
    if state.progress is not Progress.IDLE:
        raise errors.CopyRunning(name, f"-E is not possible {_doing(state)}", way_out(name, state))
    if state.offline:
        raise errors.Refused(
            name, "-E is not possible with a volume offline", way_back(name, state)
        )


def _doing(state: SetState) -> str:
    where = "master" if state.restoring else "shadow"
    return f"while a copy to the {where} " + ("runs" if state.copying else "stands aborted")


def way_out(name: str, state: SetState) -> str:
    """What ends the copy of a set, as commands."""
    if state.copying:
        wait, abort = command("iiadm -w", name), command("iiadm -a", name)
        return f"wait for it with {wait}, or abort it with {abort}"
    if state.offline:
        return way_back(name, state)
    if not state.restoring:
        return f"finish it first with {command('iiadm -u s', name)}"
    finish, give_up = command("iiadm -u m", name), command("iiadm --give-up", name)
    return f"finish it first with {finish}, or give it up with {give_up}"


def way_back(name: str, state: SetState) -> str:
    """What brings a volume back that is offline, for whatever reason: 'iiadm -i' says that."""
    reset = command("iiadm -R", name)
    if state.resumes:
        finish, give_up = command("iiadm -u m", name), command("iiadm --give-up", name)
        return (
            f"bring back what is offline with {reset} and finish the restore with {finish}; if "
            f"that cannot be, give it up with {give_up}"
        )
    return f"bring it back with {reset}; {command('iiadm -i', name)} says why it is offline"


def way_without(name: str, state: SetState) -> str:
    """What is left to do when a volume will not come back."""
    disable = f"disable the set with {command('iiadm -d', name)}"
    if not state.restoring:
        return disable
    return f"give the restore up with {command('iiadm --give-up', name)}, then {disable}"


def way_to_copy(name: str) -> str:
    """What makes chunks equal that count as different."""
    to_shadow, to_master = command("iiadm -u s", name), command("iiadm -u m", name)
    return f"{to_shadow} copies them to the shadow, {to_master} to the master"


def way_home(name: str, state: SetState, ticket: str | None = None) -> str:
    """What ends the custody of a lent shadow. `ticket`: that of the export, if it is known."""
    if state.custody is Custody.IMPORTED:
        end = command("iiadm -d", name)
        return f"disable it here with {end}, and join it on the host that exported it"
    reset = command("iiadm -R", name)
    if ticket is None or state.offline & Role.BITMAP:
        return f"take it back with {reset}, which counts all its chunks as different"
    join = command("iijoin", ticket)
    return f"join it first with {join}; if the other host is lost, take it back with {reset}"
