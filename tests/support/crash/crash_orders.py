"""Wrong orders: what `core.touch` and `core.change` answer, with something left out or turned."""

from collections.abc import Callable
from unittest.mock import patch

from iifuse.core import change as changes
from iifuse.core import touch as touches
from iifuse.core.change import Act, Chains
from iifuse.core.state import Role


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
