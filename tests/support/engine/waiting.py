"""A pipe instead of the kernel's requests, for tests of how the service waits for them."""

import os
from contextlib import contextmanager

from iifuse.loop.waiter import Waiter


@contextmanager
def pipe(*, full: bool = False):
    """A descriptor to wait for, and the one that makes it readable."""
    reader, writer = os.pipe()
    if full:
        os.write(writer, b"x")
    try:
        yield reader, writer
    finally:
        os.close(reader)
        os.close(writer)


async def waiter_knows(waiter: Waiter, fd: int, writer: int) -> None:
    """It has read from the descriptor before, in this nursery."""
    os.write(writer, b"x")
    await waiter.wait_readable(fd)
    os.read(fd, 1)
