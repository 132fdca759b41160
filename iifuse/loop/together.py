"""Tasks that wait for different disks at the same time."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeVar

import outcome
import trio

AT_ONCE: Final = 256
"""More are not begun at the same time: each may keep a thread."""

T = TypeVar("T")


async def side_by_side(calls: Iterable[Callable[[], Awaitable[T]]]) -> list[T]:
    """What each has answered, in the order of the calls.

    All of them come to their end; then the error of the first that failed is raised.
    """
    calls = list(calls)
    answers: dict[int, outcome.Outcome[T]] = {}
    room = trio.Semaphore(AT_ONCE)

    async def answer(number: int, call: Callable[[], Awaitable[T]]) -> None:
        async with room:
            try:
                answers[number] = outcome.Value(await call())
            except Exception as error:  # noqa: BLE001 - raised below
                answers[number] = outcome.Error(error)

    async with trio.open_nursery() as nursery:
        for number, call in enumerate(calls):
            nursery.start_soon(answer, number, call)
    return [answers[number].unwrap() for number in range(len(calls))]
