"""Looks for volumes that come late or were replaced, as long as the service runs."""

from itertools import count
from typing import Final

import trio

from iifuse.host.instance import Instance
from iifuse.host.verblocks import NEW, RECORD
from iifuse.verbs import late

EVERY_S: Final = 2.0
OPEN_EVERY: Final = 4
"""Open volumes are looked at every fourth time. For fifty sets this takes 1 % of a core."""


async def watch(instance: Instance) -> None:
    """Look now and then. Sets that a verb works on are left out, because the verb has looked."""
    for turn in count(1):
        await trio.sleep(EVERY_S)
        with trio.CancelScope(shield=True):
            if turn % OPEN_EVERY == 0:
                await late.look_at_open_volumes(instance)
            for claim in _claims(instance):
                if instance.verb_locks.is_free(claim):
                    with instance.verb_locks.at_once(claim):
                        await late.look_for_missing(instance, claim)


def _claims(instance: Instance) -> list[set[str]]:
    """The claims for a look at each master whose sets miss a volume. One look may take long."""
    lacking = [s for s in list(instance.sets.values()) if late.waits(s)]
    return [{NEW}, *({master, RECORD} for master in sorted(map(instance.claim_of, lacking)))]
