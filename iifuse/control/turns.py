"""Lets a verb wait until its sets are free, and finishes a verb that has begun in any case."""

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
"""The verb has to lock more names: meanwhile a set was made, or came into its group."""


class Turns:
    """Verbs on the same masters run one after the other, others side by side (host.verblocks)."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance

    def of(self, handler: Handler, claim: Callable[[Any], set[str]]) -> Handler:
        """A handler that first waits for the locks of the names that `claim` returns."""

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
        """Look for missing volumes, and then do the verb, unless it has to lock more names.

        Between this look and the verb nothing else can happen.
        """
        async with claim:
            await late.look(self._instance, held)
            return await verb() if wanted() <= held else _AGAIN


async def _finished(call: Callable[[], Awaitable[object]]) -> object:
    """The answer of a call. The call goes on to its end even if nobody waits for it any more."""
    answer: list[outcome.Outcome[object]] = []
    ended = trio.Event()

    async def finish() -> None:
        with trio.CancelScope(shield=True):  # an exception in this task would end the service
            answer.append(await outcome.acapture(call))
        ended.set()

    trio.lowlevel.spawn_system_task(finish)
    await ended.wait()
    return answer[0].unwrap()
