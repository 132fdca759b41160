"""One call of the store fails in a scenario: was every promise kept, then and afterwards?

Looked at: what the running service answers and shows; what a killed service and a power loss
leave, at the first reply after the failure and later; and that `-R` makes all true again.
"""

import logging
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial

import trio
from crash_disk import SYSTEM, Disk, Image, installed
from crash_host import Host
from crash_images import Durable
from crash_judge import SECONDS, Case, Check, Future, hosts_of, started
from crash_rig import HOSTS, Scenario
from crash_schedule import run
from fault_host import STAYS, FaultHost
from fault_inject import Call, Fault, Injector, Mode, injecting
from fault_rig import Play, play
from lost import Lost, found_at, told

from iifuse import errors
from iifuse.host.instance import Instance
from iifuse.verbs import enable

GO_ON = 0.3
"""Share of the images on which the service works on."""


def calls_of(name: str, scenario: Scenario, seed: int) -> list[Call]:
    """Every call of the store in a scenario in which nothing fails."""
    injector = Injector(Fault())
    with watched(), installed(), injecting(injector):
        run(partial(_played, name, scenario, seed, injector), seed, interleave=True)
    return injector.calls


def judge_fault(name: str, scenario: Scenario, seed: int, fault: Fault) -> None:
    """Raises Lost at a broken promise."""
    injector = Injector(fault)
    with _found_at(f"{name}, seed {seed}", injector), watched(), installed():
        with injecting(injector):
            made = run(partial(_played, name, scenario, seed, injector), seed, interleave=True)
        if injector.hit is not None:
            _judge_images(made, random.Random(f"{seed} {fault}"))


def _found_at(where: str, injector: Injector) -> AbstractContextManager[None]:
    fault = injector.fault
    return found_at(lambda: f"{where}, call {fault.number} ({fault.mode}: {injector.hit})")


async def _played(name: str, scenario: Scenario, seed: int, injector: Injector) -> Play:
    async with trio.open_nursery() as nursery:
        made = await play(name, scenario, seed, injector, nursery)
        made.rig.check()
        _check_who_is_offline(made)
        injector.repair()
        if injector.hit is not None:
            with trio.fail_after(SECONDS):
                await _go_on(made, nursery)
        nursery.cancel_scope.cancel()
    return made


def _check_who_is_offline(made: Play) -> None:
    """Nobody pays for a failure that is none, or for another set's."""
    hit, rig = made.rig.injector.hit, made.rig
    if hit is None or rig.fails:
        return
    for shadow, member in rig.main.instance.sets.items():
        own = hit.path.startswith(shadow) or hit.path == rig.sets[shadow]
        short = rig.injector.fault.mode is Mode.SHORT
        if member.state.offline and (short or not own):
            raise Lost(f"{shadow[-3:]} went offline by {hit}: {member.header.offline_reason}")


async def _go_on(made: Play, nursery: trio.Nursery) -> None:
    """The failure is over: the same service goes on, and -R makes all true."""
    case = Case(made.recording, len(made.recording.log), Image())
    hosts = [made.rig.hosts[name] for name in HOSTS]
    if made.rig.main.dead:
        await made.rig.main.up(nursery)
    if _master_failed(made.rig.main.instance):  # its syncs fail until it is opened anew
        for host in hosts:
            await host.down()
            await host.up(nursery)
    made.rig.check()
    await Afterwards(case, hosts).all()


def _master_failed(instance: Instance) -> bool:
    """A master that failed to sync or to open is opened anew by a start."""
    masters = [family.master for family in instance.families]
    return any(master is None or master._sync_error is not None for master in masters)


# -- a start in which a call fails ----------------------------------------------------------


def calls_of_start(case: Case) -> list[Call]:
    """Every call of the store while a service starts on an image."""
    return _started(case, Injector(Fault(), armed=True, starting=True)).calls


def judge_start(case: Case, fault: Fault) -> None:
    """The service comes up on the image all the same. Raises Lost at a broken promise."""
    injector = Injector(fault, armed=True, starting=True)
    recording = case.recording
    where = f"{recording.name}, seed {recording.seed}, start at {case.position}"
    with _found_at(where, injector), watched():
        _started(case, injector)


def _started(case: Case, injector: Injector) -> Injector:
    case.recording = replace(case.recording, may_be_offline=True)
    SYSTEM.disk = Disk(case.image)
    with installed(), injecting(injector):
        offline = run(partial(_start_once, case, injector), case.position)
        SYSTEM.disk = Disk(SYSTEM.disk.image())  # killed
        again = replace(case, killed=True)
        run(partial(_recover, again, injector, True, offline), case.position)
    return injector


async def _start_once(case: Case, injector: Injector) -> list[str]:
    """The shadows that went offline."""
    async with trio.open_nursery() as nursery:
        hosts = hosts_of(case, FaultHost)
        for host in hosts:
            host.injector = injector
            await host.up(nursery)
        injector.repair()
        Look(case, hosts, injector).all()
        offline = [s.name for s in hosts[0].instance.sets.values() if s.state.offline & STAYS]
        nursery.cancel_scope.cancel()
    return offline


# -- afterwards -----------------------------------------------------------------------------


class Look(Check):
    """Right after the start. A file that answers EIO shows nothing wrong."""

    def __init__(self, case: Case, hosts: list[Host], injector: Injector) -> None:
        super().__init__(case, hosts)
        self.injector = injector

    def _expect_back(self, host: Host, shadow: str) -> None:
        """Or a disable or enable that was cut short has still to be finished by a later start."""
        found = self._bitmap(f"{shadow}.b")
        begun = any(row.entering for row in host.instance.db.sets() if row.shadow == shadow)
        if found.closure == 0 if found is not None else not begun:
            super()._expect_back(host, shadow)

    def _offline(self, name: str) -> bool:
        lent = self.other.instance.sets.get(name)
        if lent is not None and (lent.state.offline or lent.missing):
            return True
        if self.lost_its_bitmap(name) or self._was_dropped(name):
            return True
        return super()._offline(name) or is_cut_off(self.main.instance, name)

    def _was_dropped(self, name: str) -> bool:
        """Its enable was never answered, and the start could not see how far it had come."""
        rows, _ = self.case.image.dbs.get(HOSTS[0], ((), ()))
        entering = any(row.shadow == name and row.entering for row in rows)
        return entering and name not in self.main.instance.sets

    def lost_its_bitmap(self, name: str) -> bool:
        """A master whose restore had a bitmap that died: nobody knows how far it came."""
        hit = self.injector.hit
        if hit is None or not (self.injector.starting or self.injector.fault.mode is Mode.GONE):
            return False
        rows = [r for r in self.main.instance.db.sets() if r.bitmap == hit.path]
        return any(row.master == name and row.doubt is not None for row in rows)


class Afterwards(Future):
    """The failure is over."""

    async def _finish_all(self) -> None:
        """-R on an exported set takes it back, which is for when nobody has it any more."""
        for shadow in list(self.other.instance.sets):
            if self.main.set(shadow).state.offline or self.other.set(shadow).state.offline:
                await enable.disable(self.other.instance, self.other.set(shadow))
        await super()._finish_all()

    def _online(self, name: str) -> bool:
        return super()._online(name) and not is_cut_off(self.main.instance, name)


def is_cut_off(instance: Instance, name: str) -> bool:
    """A master that waits for the rest of a restore from a shadow that is offline or away."""
    restoring = [s for s in instance.sets.values() if s.header.master == name and s.restoring]
    return any(s.state.offline or s.missing for s in restoring)


def _judge_images(made: Play, chance: random.Random) -> None:
    """Kill and power loss at the first reply after the failure, at the end, and in between."""
    rig, log = made.rig, made.recording.log
    first = min(rig.replied or len(log), len(log))
    stops = {first, len(log), chance.randint(min(rig.injector.at, len(log)), len(log))}
    stops |= {n for n in rig.hosts["main"].downs if rig.injector.at <= n <= len(log)}
    state = Durable(made.recording.base)
    for position in range(len(log) + 1):
        if position in stops:
            for image, killed in _images(state, chance):
                case = Case(made.recording, position, image, killed=killed)
                _judge_image(case, made, go_on=chance.random() < GO_ON)
        if position < len(log):
            state.apply(position, log[position])


def _images(state: Durable, chance: random.Random) -> Iterator[tuple[Image, bool]]:
    writes = [w for _, w in state.pending]
    yield state.whole(), True
    if writes:
        yield state.built([]), False
        yield state.built([(w, None) for w in writes if chance.random() < 0.5]), False


def _judge_image(case: Case, made: Play, *, go_on: bool) -> None:
    """Before the reply of a verb that fails there are two ways in which it may have ended."""
    wrong: list[str] = []
    pits, early = case.history.pits, made.rig.early
    before = early is not None and case.position <= made.rig.early_until
    for world in [early, pits] if before else [pits]:
        try:
            SYSTEM.disk = Disk(case.image)
            case.history.let_happen(world)
            lost = [s for s in made.recording.sets if made.rig.was_lost(s, case.position)]
            return run(partial(_recover, case, made.rig.injector, go_on, lost), case.position)
        except Exception as caught:
            wrong.append(told(caught))
        finally:
            case.history.let_happen(pits)
    end = "kill" if case.killed else "power loss"
    raise Lost(f"{end} at {case.position}: {' // '.join(wrong)}")


async def _recover(case: Case, injector: Injector, go_on: bool, lost: list[str]) -> None:
    hosts = hosts_of(case)
    async with started(hosts):
        for shadow, member in hosts[0].instance.sets.items():
            if shadow in lost and not member.state.offline:
                raise Lost(f"{shadow[-3:]} was offline and is not any more")
        look = Look(case, hosts, injector)
        look.all()
        if go_on and not any(map(look.lost_its_bitmap, case.recording.sets.values())):
            await Afterwards(case, hosts).all()


# -- the log --------------------------------------------------------------------------------


class _Log(logging.Handler):
    """Finds defects that the product has caught."""

    def __init__(self) -> None:
        super().__init__()
        self.defects: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and not isinstance(error, OSError | errors.IifuseError):
            self.defects.append(f"{record.getMessage()}: {error!r}")


@contextmanager
def watched() -> Iterator[None]:
    """While this is held, the product's log is read for defects and shown to nobody."""
    log, logger = _Log(), logging.getLogger("iifuse")
    logger.addHandler(log)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(log)
        logger.propagate = True
    if log.defects:
        raise Lost(f"a defect stands in the log: {log.defects[0]}")

