"""Calls the verb for each request, and turns its result into an answer."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import trio

from iifuse import errors
from iifuse.control import protocol
from iifuse.control.claims import Claims
from iifuse.control.health import concerns
from iifuse.control.past import history
from iifuse.control.protocol import AnyRequest, Cost, Noted, SetStatus, Target, VolumeStatus
from iifuse.control.rows import status, volumes
from iifuse.control.turns import Handler, Turns
from iifuse.core import missing
from iifuse.core.naming import find
from iifuse.core.state import Custody, Kind, Policy, Progress, Verb, check_known, how_to_end_copy
from iifuse.core.ticket import TicketEntry
from iifuse.data.volumeset import VolumeSet
from iifuse.host import space
from iifuse.host.instance import Instance
from iifuse.host.tickets import lent_again
from iifuse.verbs import (
    attach,
    enable,
    exchange,
    giveup,
    joining,
    passthrough,
    pit,
    questions,
    reset,
    verify,
)
from iifuse.verbs.costs import costs
from iifuse.verbs.exchange import Borrowing
from iifuse.verbs.opening import NewSet

_VERBS: Final = {
    ("s", False): Verb.UPDATE_SHADOW,
    ("s", True): Verb.COPY_SHADOW,
    ("m", False): Verb.UPDATE_MASTER,
    ("m", True): Verb.COPY_MASTER,
}
_KINDS: Final = {"ind": Kind.INDEPENDENT, "dep": Kind.DEPENDENT}
_GROUP_CHARACTERS_MAX: Final = 255


_DISABLED: Final = (Verb.DISABLE.in_history, "-d")
"""The event of a disable in the history. Earlier versions wrote the second text."""


class Dispatcher:
    """Answers requests. Verbs on the same masters run one after the other (host.verblocks)."""

    def __init__(self, instance: Instance, info: protocol.ServiceInfo) -> None:
        self._instance, self._info = instance, info
        self._claims = claims = Claims(instance, info.mountpoint)
        self._turns = Turns(instance)
        self._handlers: dict[type, Handler] = {
            protocol.Hello: self._hello,
            protocol.Wait: self._wait,
            protocol.Status: self._status,
            protocol.Groups: self._groups,
            protocol.Volumes: self._volumes,
            protocol.Health: self._health,
            protocol.DryRun: self._dry_run,
            protocol.History: self._history,
            protocol.Compare: self._compare,
            protocol.NotRestored: self._not_restored,
            protocol.MarkChanged: self._turns.of(self._mark_changed, claims.one),
            protocol.Enable: self._turns.of(self._enable, claims.new),
            protocol.Disable: self._turns.of(self._disable, claims.several),
            protocol.Update: self._turns.of(self._update, claims.recorded),
            protocol.Abort: self._turns.of(self._abort, claims.several),
            protocol.Reset: self._turns.of(self._reset, claims.recorded),
            protocol.GiveUp: self._turns.of(self._give_up, claims.one),
            protocol.Export: self._turns.of(self._export, claims.several),
            protocol.Import: self._turns.of(self._import, claims.new),
            protocol.CheckImport: self._turns.of(self._check_import, claims.new),
            protocol.CheckJoin: self._turns.of(self._check_join, claims.one),
            protocol.Join: self._turns.of(self._join, claims.one),
            protocol.Move: self._turns.of(self._move, claims.new),
            protocol.Control: self._turns.of(self._control, claims.new),
            protocol.Release: self._turns.of(self._release, claims.named),
            protocol.Attach: self._turns.of(self._attach, claims.new),
            protocol.Tune: self._turns.of(self._tune, claims.several),
        }

    async def answer(self, request: AnyRequest) -> object:
        """The answer to a request. Raises IifuseError."""
        return await self._handlers[type(request)](request)

    # -- asking -----------------------------------------------------------------------------

    async def _hello(self, request: protocol.Hello) -> protocol.ServiceInfo:  # noqa: ARG002
        return self._info

    async def _status(self, request: protocol.Status) -> list[SetStatus]:
        sets = self._select(request.target, everything=True)
        return [await status(self._instance, member) for member in sets]

    async def _groups(self, request: protocol.Groups) -> list[str]:  # noqa: ARG002
        return sorted({s.group for s in list(self._instance.sets.values()) if s.group})

    async def _volumes(self, request: protocol.Volumes) -> list[VolumeStatus]:  # noqa: ARG002
        return await volumes(self._instance, self._info.mountpoint)

    async def _health(self, request: protocol.Health) -> list[protocol.Concern]:  # noqa: ARG002
        return await concerns(self._instance, self._info.mountpoint)

    async def _history(self, request: protocol.History) -> list[protocol.HistoryRow]:
        return await history(self._instance, request.target, self._info.mountpoint, request.after)

    async def _wait(self, request: protocol.Wait) -> Noted:
        sets = self._select(request.target)
        with trio.move_on_after(request.timeout if request.timeout is not None else float("inf")):
            for member in sets:
                await self._wait_for(member)
            _check_finished(sets)
            return Noted()
        raise errors.WaitTimedOut("", f"a copy still runs after {request.timeout:g} seconds")

    async def _wait_for(self, member: VolumeSet) -> None:
        while member.header.copying:
            copier = self._instance.running(member)
            if copier is not None:
                await copier.wait()
            else:  # perhaps a new PIT is made just now, and its copy starts after that
                async with self._instance.verb_locks.claimed({self._instance.claim_of(member)}):
                    lost = member.header.copying and self._instance.running(member) is None
                if lost:
                    why = next((f": {m.words(r)}" for r, m in member.missing.items()), "")
                    why = f"its copy does not run{why}"
                    raise errors.CopyStopped(member.name, why, _on(member))

    def _select(self, target: Target, *, everything: bool = False) -> list[VolumeSet]:
        if everything and target == Target():
            return list(self._instance.sets.values())
        return self._claims.sets_of(target)

    def _set(self, name: str) -> VolumeSet:
        return find(self._instance.sets, name, self._info.mountpoint)

    # -- sets -------------------------------------------------------------------------------

    async def _enable(self, request: protocol.Enable) -> Noted:
        if request.group is not None:
            _check_group_name(request.group)
        names = (request.master, request.shadow, request.bitmap, request.group)
        policy = _tuned(Policy(), request.tuning)
        new = NewSet(_KINDS[request.kind], *names, policy, request.reserve, request.sure)
        notes: list[str] = []
        await enable.enable(self._instance, new, notes.append)
        return Noted(tuple(notes))

    async def _attach(self, request: protocol.Attach) -> Noted:
        if request.group is not None:
            _check_group_name(request.group)
        return Noted(tuple(await attach.attach(self._instance, request.bitmaps, request.group)))

    async def _tune(self, request: protocol.Tune) -> Noted:
        sets = self._select(request.target)
        for member in sets:
            member.check_whole("-o")
        for member in sets:
            await enable.tune(self._instance, member, _tuned(member.policy, request.tuning))
        return Noted()

    async def _disable(self, request: protocol.Disable) -> Noted:
        target, notes = await self._without_disabled(request.target)
        sets = self._select(target)
        async with self._all_ready(sets, Verb.DISABLE):
            await questions.before_disable(self._instance, sets, sure=request.sure)
            for member in sets:
                notes += await enable.disable(self._instance, member)
        return Noted(tuple(notes))

    async def _without_disabled(self, target: Target) -> tuple[Target, list[str]]:
        """The target without sets that are disabled already, and remarks about those.

        A command that has stopped half-way can be repeated by this.
        """
        there = [name for name in target.sets if self._is_there(name)]
        gone = [name for name in target.sets if name not in there]
        for name in gone:
            events = await self._instance.loop.blocking(partial(self._instance.db.history, name))
            if not there or not events or events[-1][0] not in _DISABLED:
                return target, []  # the name is wrong, so the verb has to refuse it
        return Target(tuple(there), target.group), [f"{name}: is disabled already" for name in gone]

    def _is_there(self, name: str) -> bool:
        try:
            self._set(name)
        except errors.NotFound:
            return False
        return True

    @asynccontextmanager
    async def _all_ready(self, sets: Sequence[VolumeSet], verb: Verb) -> AsyncIterator[None]:
        """Check all sets before the first is changed, and keep their files closed meanwhile."""
        for member in sets:
            member.check(verb)
            await member.try_shadow()
        views = [self._instance.views.get(member.name) for member in sets]
        async with self._instance.closed(views, "close it first"):
            for member in sets:
                member.check(verb)
            yield

    async def _update(self, request: protocol.Update) -> list[SetStatus]:
        sets, verb = self._select(request.target), _VERBS[request.direction, request.full]
        await questions.before_update(self._instance, verb, sets, sure=request.sure)
        await pit.make(self._instance, verb, sets)
        return [await status(self._instance, s) for s in sets]

    async def _dry_run(self, request: protocol.DryRun) -> list[Cost]:
        sets, verb = self._select(request.target), _VERBS[request.direction, request.full]
        return [Cost(*cost) for cost in await costs(self._instance, verb, sets)]

    async def _abort(self, request: protocol.Abort) -> Noted:
        sets = self._select(request.target)
        for member in sets:
            await self._instance.abort(member)
        for member in sets:  # in a second loop, so that a refusal does not keep others running
            if member.header.progress is not Progress.IDLE:
                missing.check_noted(member.name, member.missing, "-a")
        return Noted()

    async def _reset(self, request: protocol.Reset) -> Noted:
        notes: list[str] = []
        sets = self._select(request.target)
        await questions.before_reset(self._instance, sets, sure=request.sure)
        for member in sets:
            try:
                notes += await reset.reset(self._instance, member)
                if member.header.copying and not member.restoring:
                    notes += await space.remarks(self._instance, member)
            except (errors.BadVolume, errors.NoAnswer) as error:
                raise reset.with_way_out(member, error) from error
        return Noted(tuple(notes))

    async def _give_up(self, request: protocol.GiveUp) -> Noted:
        member = self._set(request.shadow)
        return Noted(tuple(await giveup.give_up(self._instance, member, sure=request.sure)))

    async def _not_restored(self, request: protocol.NotRestored) -> protocol.Compared:
        member = self._set(request.shadow)
        return protocol.Compared(tuple(giveup.not_restored(member, request.first, request.count)))

    async def _compare(self, request: protocol.Compare) -> protocol.Compared:
        member = self._set(request.shadow)
        runs = await verify.compare(self._instance, member, request.first, request.count)
        return protocol.Compared(tuple(runs))

    async def _mark_changed(self, request: protocol.MarkChanged) -> Noted:
        member = self._set(request.shadow)
        await verify.mark(self._instance, member, list(request.runs))
        return Noted()

    # -- exchange ---------------------------------------------------------------------------

    async def _export(self, request: protocol.Export) -> list[TicketEntry]:
        sets, found = self._select(request.target), {}
        done = [s for s in sets if request.again and s.header.custody is Custody.EXPORTED]
        todo = [s for s in sets if s not in done]
        for member in done:
            missing.check_noted(member.name, member.missing, "-E")
            check_known(member.name, member.state, member.header.export_number)
        async with self._all_ready(todo, Verb.EXPORT):
            for member in todo:
                found[member] = await exchange.export(self._instance, member)
        for member in done:
            found[member] = await self._instance.loop.blocking(
                partial(lent_again, self._instance, member.header)
            )
        return [found[member] for member in sets]

    async def _import(self, request: protocol.Import) -> Noted:
        borrowing = Borrowing(request.shadow, request.bitmap, request.ticket, request.sure)
        return Noted(tuple(await exchange.take_in(self._instance, borrowing)))

    async def _check_import(self, request: protocol.CheckImport) -> Noted:
        borrowing = Borrowing(request.shadow, request.bitmap, request.ticket, request.sure)
        await exchange.check_import(self._instance, borrowing)
        return Noted()

    async def _check_join(self, request: protocol.CheckJoin) -> Noted:
        member = self._set(request.shadow)
        await joining.check_join(
            self._instance, member, request.bitmap, accept_unclosed=request.accept_unclosed
        )
        return Noted()

    async def _join(self, request: protocol.Join) -> Noted:
        member = self._set(request.shadow)
        notes = await joining.join(
            self._instance, member, request.bitmap, accept_unclosed=request.accept_unclosed
        )
        return Noted(tuple(notes))

    # -- groups and volumes -----------------------------------------------------------------

    async def _move(self, request: protocol.Move) -> Noted:
        group = request.group or None
        if group is not None:
            _check_group_name(group)
        sets = self._select(Target(request.sets))
        await self._instance.loop.blocking(
            lambda: self._instance.db.move_sets([s.name for s in sets], group)
        )
        for member in sets:
            member.group = group
        return Noted()

    async def _control(self, request: protocol.Control) -> Noted:
        return Noted(tuple(await passthrough.control(self._instance, request.volumes)))

    async def _release(self, request: protocol.Release) -> Noted:
        volumes, sure = request.volumes, request.sure
        return Noted(tuple(await passthrough.release(self._instance, volumes, sure=sure)))


def _tuned(policy: Policy, tuning: protocol.Tuning) -> Policy:
    broken, limit = tuning.break_write, tuning.limit_s
    return Policy(
        policy.break_write if broken is None else broken,
        policy.limit_s if limit is None else limit,
    )


def _check_finished(sets: list[VolumeSet]) -> None:
    for member in sets:
        if member.header.progress is not Progress.IDLE:
            raise errors.CopyStopped(
                member.name,
                "its copy was aborted or failed"
                + (f" ({member.header.offline_reason})" if member.header.offline_reason else ""),
                _on(member),
            )


def _on(member: VolumeSet) -> str:
    """What makes a copy go on that has stopped, for people."""
    lacking = (missing.way_out(member.name, m) for m in member.missing.values() if not m.served)
    return next(lacking, how_to_end_copy(member.name, member.state))


def _check_group_name(name: str) -> None:
    if name.startswith("-") or not name.isprintable() or any(map(str.isspace, name)):
        raise errors.UsageError(
            name, "is not a group name: no white space, and no '-' at the beginning"
        )
    if not 0 < len(name) <= _GROUP_CHARACTERS_MAX:
        raise errors.UsageError(name[:20], "is not a group name: 1 to 255 characters")
