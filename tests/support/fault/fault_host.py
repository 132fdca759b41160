"""A machine whose volumes fail: its sets may have gone, its start may be refused."""

import trio
from crash_host import Host
from fault_inject import Injector
from lost import Lost

from iifuse import errors
from iifuse.core.state import Role

STAYS = Role.SHADOW | Role.BITMAP
"""What -R alone brings back; a master that was away comes back by itself."""


class Stopped(Exception):
    """A verb has failed as it may; the scenario ends here."""


class FaultHost(Host):
    """A machine whose sets may have gone."""

    async def wait(self, path: str) -> None:
        if path in self.instance.sets:
            await super().wait(path)

    @property
    def own_files(self) -> tuple[str, ...]:
        """Without these it cannot start; without any volume it can."""
        return "state.db", self.directory, f"{self.directory}/transitions"

    async def abort(self, path: str) -> None:
        """As the control server does it."""
        member = self.set(path)
        await self.instance.stop_copy(member)
        if member.header.copying:
            await member.end_copy()
            await self.instance.note(member, "abort")

    async def up(self, nursery: trio.Nursery) -> None:
        """A start that fails with an explanation is tried again, as an admin does."""
        for _ in range(2):
            try:
                await super().up(nursery)
            except (errors.IifuseError, OSError) as error:
                if self.injector.hit is None or self.injector.hit.path not in self.own_files:
                    raise Lost(f"the service does not start: {error!r}") from error
                for handle in self.disk.handles.values():
                    handle[2] = False  # the process has ended, and its locks with it
            else:
                self.dead = False
                return
        self.dead = True
        raise Stopped

    injector: Injector
    dead = False
    downs: tuple[int, ...] = ()
    """The positions after clean stops."""

    async def down(self) -> None:
        await super().down()
        self.downs += (len(self.disk.log),)
