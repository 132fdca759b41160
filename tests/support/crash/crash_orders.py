"""Wrong orders: what `core.touch` and `core.change` answer, with something left out or turned.

`WRONG_ORDERS` are planted under both explorers: that of the real engine (crash_bugs says in which
scenarios it finds them) and that of all scripts (crash_twists, with which sets).
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from iifuse.core import change as changes
from iifuse.core import touch as touches
from iifuse.core.change import Act, Chains, CommitPending, WriteBitmap
from iifuse.core.sector import Region
from iifuse.core.state import Role
from iifuse.core.touch import Copy, Mark, Sync
from iifuse.verbs import loading

Plant = Callable[[], AbstractContextManager[Any]]


def steps(name: str, change: Callable[[list], list]):
    """Patch a function with orders: the steps of each phase, or chain, go through `change`."""
    orders = touches if hasattr(touches, name) else changes
    real = getattr(orders, name)
    return patch.object(orders, name, lambda *a, **k: twisted(real(*a, **k), change))


def twisted(found, change: Callable[[list], list]):
    if isinstance(found, Act):
        return found
    if isinstance(found, Chains):
        return Chains({key: tuple(change(list(chain))) for key, chain in found.of.items()})
    if found and isinstance(found[0], tuple | Chains | Act):
        return [twisted(phase, change) for phase in found]
    return tuple(change(list(found)))


def phases(name: str, change: Callable[[list], list]):
    """As `steps`, for whole phases."""
    orders = touches if hasattr(touches, name) else changes
    real = getattr(orders, name)
    return patch.object(orders, name, lambda *a, **k: change(list(real(*a, **k))))


def leave_out(*kinds: type, role: Role | None = None) -> Callable[[list], list]:
    def change(found: list) -> list:
        return [
            s for s in found
            if not (isinstance(s, kinds) and (role is None or getattr(s, "role", role) is role))
        ]  # fmt: skip

    return change


def forgotten_early(found: list) -> list:
    """The record of a group goes before the last set's header is committed."""
    if Act.FORGET_RECORD not in found:
        return found
    *before, whole = found[: found.index(Act.ADOPT)]
    last, chain = list(whole.of.items())[-1]
    early = Chains({**whole.of, last: chain[:-1]})
    late = Chains({last: chain[-1:]})
    return [*before, early, Act.FORGET_RECORD, late, Act.ADOPT, Act.OPEN_GATES]


def of_bits(step: object) -> bool:
    """Is it about the bitmap?"""
    return isinstance(step, Mark) or getattr(step, "role", None) is Role.BITMAP


def _first(wanted: Callable[[Any], bool]) -> Callable[[list], list]:
    return lambda found: sorted(found, key=lambda step: not wanted(step))


def _no_record() -> AbstractContextManager[Any]:
    real = loading.unfinished
    return patch.object(loading, "unfinished", lambda _, header: real((), header))


def _is_shadow_store(step: object) -> bool:
    return isinstance(step, WriteBitmap) and step.region is Region.SHADOW


def _in(name: str, change: Callable[[list], list]) -> Plant:
    return lambda: steps(name, change)


WRONG_ORDERS: dict[str, Plant] = {
    "mark_before_preserve": _in("first_touch", _first(of_bits)),
    "no_sync_after_preserve": _in("first_touch", leave_out(Sync, role=Role.SHADOW)),
    "no_sync_after_mark": _in("first_touch", leave_out(Sync, role=Role.BITMAP)),
    "nothing_preserved": _in("first_touch", leave_out(Copy)),
    "no_sync_after_restoring_a_chunk": _in("first_touch", leave_out(Sync, role=Role.MASTER)),
    "source_not_synced_at_the_pit": _in(
        "point_in_time",
        lambda found: [s for s in found if not isinstance(s, Sync) or s.role is Role.BITMAP],
    ),
    "shadow_bits_zeroed_before_copy_bits_are_durable": _in(
        "whole_change", _first(_is_shadow_store)
    ),
    "pending_record_left_out": _in("point_in_time", leave_out(CommitPending)),
    "group_record_left_out": lambda: phases(
        "point_in_time", lambda found: [phase for phase in found if phase is not Act.RECORD]
    ),
    "group_record_forgotten_before_the_last_commit": lambda: phases(
        "point_in_time", forgotten_early
    ),
    "recovery_ignores_the_group_record": _no_record,
}
