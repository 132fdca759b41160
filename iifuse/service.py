"""The composition root: options, mount, instance, control socket, stop."""

import logging
import os
import resource
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Final, NoReturn
from uuid import UUID

import sdnotify
import trio

from iifuse import __version__, background, errors, logs, stopping, streams, surroundings, terminal
from iifuse.control.dispatch import Dispatcher
from iifuse.control.protocol import ServiceInfo
from iifuse.control.server import Server
from iifuse.fuse.session import Mount
from iifuse.host import space
from iifuse.host.instance import Instance
from iifuse.loop.loop import Loop
from iifuse.nursery.nursery import Nursery
from iifuse.options import Options, parse_options, parser
from iifuse.store import claims, linux
from iifuse.store.names import make_directory
from iifuse.store.programs import GONE, NAME, RESTART
from iifuse.store.statedb import StateDB
from iifuse.store.transitions import TransitionFile
from iifuse.units import count
from iifuse.verbs import recovery, stop, watch

log = logging.getLogger("iifuse")

_STACK_BYTES: Final = 1 << 20

STILL_OPEN: Final = 3
"""Exit code: stopped in order while somebody still had files open."""
UNSAVED: Final = 4
"""Exit code: a volume did not answer at the end, and what was not saved is looked at next time."""


def main() -> int:
    """Run the service until it is told to stop; its exit code."""
    streams.hold_places()
    try:
        arguments = parser().parse_args()
        options = parse_options(arguments.options)
        detached = background.is_detached()
        if arguments.daemon and not detached:
            return background.start()
        stopping.hold_back()
        state = os.path.abspath(arguments.state)
        logs.set_up(arguments.log or (logs.usual(state) if detached else None))
        children = Nursery.start()  # before any volume is open and any thread runs
        threading.stack_size(_STACK_BYTES)  # locked memory: a thread's whole stack is resident
        written = logs.LogWriter()
        written.start()
        service = Service(
            children,
            written,
            mountpoint=arguments.mountpoint,
            state=state,
            socket=os.path.abspath(arguments.socket),
            options=options,
            when_ready=background.let_go if detached else lambda: None,
        )
        stopping.end(_run(service))
    except errors.IifuseError as error:
        return _explain(error, _say)


def _run(service: "Service") -> int:
    """Run the service. Returns its exit code. Errors are printed before this returns."""
    try:
        return trio.run(service.run)
    except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - it is told
        return _explain(_first_error(error), service.written.say)
    finally:
        service.let_go()


def _explain(error: errors.IifuseError, say: Callable[[str], None]) -> int:
    if sys.stderr is not None:  # else it would go to standard output
        say(terminal.fitted(f"iifuse: {error}", sys.stderr))
    return error.exit_code


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _first_error(error: BaseException) -> errors.IifuseError:
    """The explained error in a nursery's group; for a defect, the log gets the traceback."""
    first: BaseException | None = error
    while isinstance(first, BaseExceptionGroup):
        explained = first.subgroup(errors.IifuseError)
        first = explained.exceptions[0] if explained is not None else None
    if isinstance(first, errors.IifuseError):
        return first
    log.critical("the service ends by a defect", exc_info=error)
    return errors.InternalError("", "the service ended by a defect", "see the log")


class Service:
    """One mount with all its sets."""

    def __init__(
        self,
        children: Nursery,
        written: logs.LogWriter,
        *,
        mountpoint: str,
        state: str,
        socket: str,
        options: Options,
        when_ready: Callable[[], None],
    ) -> None:
        self.state, self.socket, self.options = state, socket, options
        self.children, self.written, self._when_ready = children, written, when_ready
        self.loop = Loop()
        self.mount = Mount(
            self.loop, mountpoint, children, writeback_cache=options.writeback_cache,
            in_place=options.in_place,
        )  # fmt: skip
        self._code, self._is_ending = 0, False

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT; 0, or 3 when files were still open at the end."""
        with stopping.listening() as signals:
            _harden(self.loop)
            async with self._stores() as (db, transitions):
                await self._serve(db, transitions, signals)
        return self._code

    @asynccontextmanager
    async def _stores(self) -> AsyncIterator[tuple[StateDB, TransitionFile]]:
        """The state directory, locked."""
        try:
            make_directory(self.state)
        except OSError as error:
            raise errors.ServiceError(self.state, f"cannot be made ({error.strerror})") from error
        _warn_if_lost(self.state)
        _prepare_claims()
        transitions = TransitionFile.open(self.state)
        db = StateDB(self.state)
        try:
            yield db, transitions
        finally:
            db.close()
            transitions.close()

    async def _serve(
        self, db: StateDB, transitions: TransitionFile, signals: AsyncIterator[int]
    ) -> None:
        async with trio.open_nursery() as nursery:
            instance = Instance(
                loop=self.loop,
                directory=self.state,
                db=db,
                transitions=transitions,
                hooks=self.mount,
                nursery=nursery,
                boot_id=_boot_id(),
                ordered=self.options.ordered,
                declared=self.options.declared,
            )
            place = self.mount.mountpoint, self.state, self.socket
            await surroundings.look(instance, *place, self.children)
            info = ServiceInfo(__version__, os.getpid(), *place)
            self._server = Server(self.socket, Dispatcher(instance, info).answer, self.loop.limits)
            await self._server.open()
            try:
                await self._run_mount(instance, signals)
            finally:
                self._server.close()

    async def _run_mount(self, instance: Instance, signals: AsyncIterator[int]) -> None:
        self.mount.open()
        told = trio.current_time()
        try:
            async with trio.open_nursery() as mounted:
                mounted.start_soon(self._run_fuse, mounted.cancel_scope)
                await self.mount.wait_ready()
                await recovery.start(instance)
                await _tell(instance, "service started")
                mounted.start_soon(self._server.run)
                mounted.start_soon(space.watch, instance)
                mounted.start_soon(self.mount.keep_fresh)
                mounted.start_soon(instance.timekeeper.watch)
                mounted.start_soon(instance.notes.keep_up)
                mounted.start_soon(instance.history.keep_up)
                mounted.start_soon(instance.history.keep_short)
                mounted.start_soon(watch.watch, instance)
                mounted.start_soon(self._watch_children)
                log.info("ready at %s, %s", self.mount.mountpoint, count(len(instance.sets), "set"))
                await self.loop.blocking(self.written.wait_until_written)
                sdnotify.SystemdNotifier().notify("READY=1")
                self._when_ready()
                await stopping.told(signals)
                told = trio.current_time()
                sdnotify.SystemdNotifier().notify("STOPPING=1")
                await stopping.close(instance)
                seconds = self.options.stop_wait
                if not await stopping.prepare(instance, self.mount, seconds, signals):
                    self._code = STILL_OPEN
                self.mount.stop()
                trio.lowlevel.spawn_system_task(self._end_anyway, instance, told)
                await trio.sleep_forever()  # until `_run_fuse` ends everything here
        finally:
            with trio.CancelScope(shield=True):
                if self._is_ending:  # `_end_anyway` saves, and ends the process
                    await trio.sleep_forever()
                self._is_ending = True
                await self._save(instance, told)
                await self.loop.blocking(self.mount.close)

    async def _end_anyway(self, instance: Instance, told: float) -> None:
        """End the service although a request waits for a volume that does not answer."""
        await trio.sleep(stopping.REQUESTS_S)
        if not self._is_ending:
            self._is_ending = True
            log.error("a request does not come to its end, and is cut off as by a crash")
            await self._save(instance, told)
            self._leave(instance, UNSAVED)

    async def _save(self, instance: Instance, told: float) -> None:
        """What can be saved within the time that a stop may take; the rest ends the service."""
        is_quiet = await stopping.close(instance)  # told from outside, by an unmount, nobody has
        left = told + self.options.stop_wait + stopping.LAST_S - trio.current_time()
        if await stop.stop(instance, max(left, stopping.SAVE_S)) and is_quiet:
            await _tell(instance, "service stopped")
            _tell_silent(instance.lookout.silent)
        else:
            self._leave(instance, UNSAVED)

    def _leave(self, instance: Instance, code: int) -> NoReturn:
        """Threads wait for volumes, and the interpreter would for the threads.

        The kernel may keep the process as long as they wait: all that can be is left for the next.
        """
        self.mount.close()
        _tell_silent(stop.let_go(instance, stopping.LET_GO_S))
        self._server.close()
        ends = (instance.db.close, instance.transitions.close)
        stop.within(stopping.LET_GO_S, dict(enumerate(ends)))
        self.let_go()
        stopping.end(code)

    def let_go(self) -> None:
        """At the end: no process is left, and no line of the log that anybody reads."""
        self.children.close()
        self.written.end()

    async def _watch_children(self) -> None:
        """Say at once that their process has ended: it cannot be started again."""
        await trio.lowlevel.wait_readable(self.children.end)
        self.children.bury()
        log.error("%s: %s; %s", NAME, GONE, RESTART)

    async def _run_fuse(self, scope: trio.CancelScope) -> None:
        """Serve the kernel; an unmount from outside ends the service in order."""
        await self.mount.run()
        scope.cancel()


def _tell_silent(paths: Iterable[str]) -> None:
    """Name the volumes, or the paths of volumes, that threads wait for at the end."""
    for path in paths:
        log.error(
            "%s: does not answer, and until it does the kernel keeps process %d, which asks it",
            path, os.getpid(),
        )  # fmt: skip


async def _tell(instance: Instance, what: str) -> None:
    """The history knows when the service was there."""
    sets = len(instance.sets)
    why = f"version {__version__}, {count(sets, 'set')}"
    instance.history.tell(None, what, why=why)
    await instance.history.note()


def _warn_if_lost(state: str) -> None:
    """A state directory that was in use and has no database."""
    path = os.path.join(state, "state.db")
    if os.path.exists(os.path.join(state, "transitions")) and not os.path.exists(path):
        log.warning(
            "%s is missing, no set is known; iiadm --attach and their bitmap volumes bring them "
            "back", path
        )


def _prepare_claims() -> None:
    try:
        usable = claims.sweep()
    except OSError as error:
        raise errors.ServiceError(
            claims.DIRECTORY, f"cannot be used ({error.strerror})", "make room there, or mend it"
        ) from error
    if not usable:
        log.warning("%s may not be written: a volume is locked by its name only", claims.DIRECTORY)


def _boot_id() -> UUID:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return UUID(file.read().strip())


def _harden(loop: Loop) -> None:
    """Against deadlocks under memory pressure, data in core files, SIGIO, too few descriptors."""
    # Sent when somebody opens a volume just when we hold a lease on it, by which we tell whether
    # anybody has it open. By default it would end the process, and every mount with it.
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # three descriptors a set
    try:
        loop.start_reserve_threads()
    except OSError as error:
        raise errors.ServiceError(
            "threads", f"cannot be started ({error.strerror})", "allow it more (pids, TasksMax)"
        ) from error
    linux.keep_memory()
    if not linux.lock_memory():
        log.info("memory cannot be locked (CAP_IPC_LOCK, LimitMEMLOCK)")
    linux.be_io_flusher()
    linux.forbid_core_dumps()
    linux.set_name("iifuse")


if __name__ == "__main__":
    sys.exit(main())
