"""The engine on real files and a real state database, without a mount."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from crash_host import BOOT, Hooks

from iifuse.engine import recovery
from iifuse.engine.engine import Engine
from iifuse.store.names import make_directory
from iifuse.store.statedb import StateDB
from iifuse.store.transitions import TransitionFile


@asynccontextmanager
async def service(
    state: Path, *, killed: bool = False, ordered: bool = True
) -> AsyncIterator[Engine]:
    """`killed`: it ends with nothing saved, all its calls done."""
    make_directory(str(state))
    db, transitions = StateDB(str(state)), TransitionFile.open(str(state))
    async with trio.open_nursery() as nursery:
        engine = Engine(
            directory=str(state), db=db, transitions=transitions, hooks=Hooks(), nursery=nursery,
            boot_id=BOOT, ordered=ordered,
        )  # fmt: skip
        await recovery.start(engine)
        yield engine
        if killed:
            nursery.cancel_scope.cancel()
            for family in engine.families:
                recovery._close(family)
        else:
            await recovery.stop(engine)
    transitions.close()
    db.close()
