"""What every judge says of a broken promise, and where it was broken."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Lost(AssertionError):
    """A promise was broken."""


def innermost(error: BaseException) -> BaseException:
    """The reason for an exception group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def told(error: BaseException) -> str:
    """Its reason, for people."""
    found = innermost(error)
    return f"{type(found).__name__}: {found}"


@contextmanager
def found_at(where: Callable[[], str]) -> Iterator[None]:
    """Whatever fails here is told with its place: a crash of the product breaks a promise too."""
    try:
        yield
    except Exception as caught:
        raise Lost(f"{where()}: {told(caught)}") from innermost(caught)
