"""Which of the unsynced events a power loss leaves: patterns that find most defects, and chance."""

import random
from collections.abc import Iterator

from crash_disk import Image
from crash_unsynced import Choice
from fs_log import Durable, Entries, built

Both = tuple[Choice, list[Entries]]


def images(state: Durable, chance: random.Random, budget: int, root: str) -> Iterator[Image]:
    """`budget` images of what a loss at this moment may leave; fewer where little is unsynced."""
    found = [*_patterns(state), *(_random(state, chance) for _ in range(budget))]
    for data, entries in chance.sample(found, min(budget, len(found))):
        yield built(state, data, entries, root)


def whole(state: Durable, root: str) -> Image:
    """Nothing is lost: what a killed service leaves in the page cache."""
    return built(state, *_everything(state), root)


def _everything(state: Durable) -> Both:
    return state.everything(), [e for _, e in state.entries]


def _patterns(state: Durable) -> Iterator[Both]:
    """All or nothing of the data and of the names; and each file and each name alone."""
    data, entries = _everything(state)
    yield [], []
    if data or entries:
        yield data, entries
    if data and entries:
        yield data, []
        yield [], entries
    for file in sorted({change.file for change, _ in data}):
        yield [c for c in data if c[0].file == file], entries
        yield [c for c in data if c[0].file != file], entries
    for at in range(len(entries)):
        kept = entries[:at] if state.file_systems else entries[:at] + entries[at + 1 :]
        yield data, kept
        yield [], kept


def _random(state: Durable, chance: random.Random) -> Both:
    return state.some(chance), _some_entries(state, chance)


def _some_entries(state: Durable, chance: random.Random) -> list[Entries]:
    """Any of them; of a journal, those up to a moment."""
    if not state.file_systems:
        return [e for _, e in state.entries if chance.random() < 0.5]
    kept: list[Entries] = []
    for journal in {state.journal_of(e.directory) for _, e in state.entries}:
        ours = [e for _, e in state.entries if state.journal_of(e.directory) == journal]
        kept += ours[: chance.randint(0, len(ours))]
    return kept
