"""Sets with something to copy, and who is told of its end."""

from fake_volume import CHUNK, Bench

from iifuse.core.state import Kind, Progress


class Ended:
    """Whom the copier tells that it has finished."""

    def __init__(self) -> None:
        self.members = []

    async def __call__(self, member) -> None:
        self.members.append(member)


def scattered(count: int, kind: Kind = Kind.INDEPENDENT, progress: Progress = Progress.TO_SHADOW):
    """A bench with every other chunk of `count` still to be copied, and that set."""
    bench = Bench(b"m" * (count * CHUNK))
    copy = tuple(range(0, count, 2))
    return bench, bench.add("/s", kind, b"s" * (count * CHUNK), progress, copy)
