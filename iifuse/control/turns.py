"""A verb waits for its turn, and is finished once begun, whoever has asked for it."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Final

import outcome
import trio

from iifuse.host.instance import Instance
from iifuse.host.verblocks import Claim
from iifuse.verbs import late

Handler = Callable[[Any], Awaitable[object]]

_AGAIN: Final = object()
"""While a verb waited, or looked, one of its sets was made, or a set came into its group."""


class Turns:
    """Verbs on the same masters run one after the other, others side by side (host.verblocks)."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance

    def of(self, handler: Handler, claim: Callable[[Any], set[str]]) -> Handler:
        """The verb `handler`, which waits for those that work on what it claims."""

        async def in_turn(request: Any) -> object:
            answer = _AGAIN
            while answer is _AGAIN:
                async with AsyncExitStack() as stack:
                    held = await stack.enter_async_context(
                        self._instance.verb_locks.claimed(claim(request))
                    )
                    verb = partial(self._do, partial(handler, request), partial(claim, request))
                    answer = await _finished(partial(verb, held, stack.pop_all()))
            return answer

        return in_turn

    async def _do(
        self,
        verb: Callable[[], Awaitable[object]],
        wanted: Callable[[], set[str]],
        held: Claim,
        claim: AsyncExitStack,
    ) -> object:
        """The verb looks for its sets at once, so nothing can come between it and this look."""
        async with claim:
            await late.look(self._instance, held)
            return await verb() if wanted() <= held else _AGAIN


async def _finished(call: Callable[[], Awaitable[object]]) -> object:
    """What a call answers, which goes on to its end although nobody waits for it any more."""
    answer: list[outcome.Outcome[object]] = []
    ended = trio.Event()

    async def finish() -> None:
        with trio.CancelScope(shield=True):  # what it raised would be the service's end
            answer.append(await outcome.acapture(call))
        ended.set()

    trio.lowlevel.spawn_system_task(finish)
    await ended.wait()
    return answer[0].unwrap()
