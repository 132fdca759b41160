"""The engine on real files and a real state database, without a mount."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from crash_host import BOOT, Hooks

from iifuse.host.instance import Instance
from iifuse.loop.loop import Loop
from iifuse.store.names import make_directory
from iifuse.store.statedb import StateDB
from iifuse.store.transitions import TransitionFile
from iifuse.verbs import recovery, stop


@asynccontextmanager
async def service(
    state: Path, *, killed: bool = False, ordered: bool = True
) -> AsyncIterator[Instance]:
    """`killed`: it ends with nothing saved, all its calls done."""
    make_directory(str(state))
    db, transitions = StateDB(str(state)), TransitionFile.open(str(state))
    async with trio.open_nursery() as nursery:
        instance = Instance(
            loop=Loop(),
            directory=str(state), db=db, transitions=transitions, hooks=Hooks(), nursery=nursery,
            boot_id=BOOT, ordered=ordered,
        )  # fmt: skip
        await recovery.start(instance)
        yield instance
        if killed:
            nursery.cancel_scope.cancel()
            for family in instance.families:
                for volume in (*family.sets, family.master):
                    if volume is not None:
                        volume.close()
        else:
            await stop.stop(instance)
    transitions.close()
    db.close()
