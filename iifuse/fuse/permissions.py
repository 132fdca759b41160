"""Who may use a node of the mount: the kernel checks by what we have seen last (K10).

Nobody who asks for attributes waits for a volume or a directory: those may lie on a disk that does
not answer (K8). They are looked at when a file comes, when it is opened, and every few seconds.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable
from functools import cached_property, partial
from typing import Final

import trio

from iifuse.fuse.namespace import Namespace, Node
from iifuse.loop.lookout import Lookout
from iifuse.store import access
from iifuse.store.access import ROOT_ONLY, Access
from iifuse.store.identity import Host

log = logging.getLogger(__name__)

EVERY_S: Final = 6.0
"""How often all is looked at. With the kernel's own second a change shows within ten."""

Tell = Callable[[list[Node]], Awaitable[None]]
"""Lets the kernel forget what it knows of nodes."""


class Permissions:
    """Looks at the real volumes and directories; one that does not answer keeps what it had.

    `lists`: does the kernel go by access control lists? Else where there is one nobody but owner
    and root is let in, as the group's bits say what its mask says.
    """

    def __init__(self, namespace: Namespace, lookout: Lookout) -> None:
        self.lists = False
        self._namespace, self._lookout = namespace, lookout

    async def keep_fresh(self, tell: Tell) -> None:
        """Look now and then, for as long as the service lives."""
        while True:
            await trio.sleep(EVERY_S)
            changed = await self.look(self._namespace.nodes())
            if changed:
                await tell(changed)

    async def look(self, nodes: Iterable[Node]) -> list[Node]:
        """Look at nodes in a thread; those that are others than they were."""
        sight, before = _Sight(), {node: node.access for node in nodes}
        how = {node.path: partial(sight.of, node) for node in before}
        try:
            found = await self._lookout.look(how)
        except Exception as error:  # noqa: BLE001 - no thread to be had, for instance
            log.debug("nobody can look at who may use what: %s", error)
            return []
        for node in before:
            node.access = found.get(node.path) or node.access
        return [node for node, access in before.items() if node.access != access]

    def of(self, node: Node) -> Access:
        """Owner and mode to be shown."""
        found = node.access
        if found.acl is None or self.lists:
            return found
        return Access(found.uid, found.gid, found.mode & ROOT_ONLY.mode)


class _Sight:
    """One look at many nodes: what is mounted where is read once for all of them."""

    @cached_property
    def _host(self) -> Host:
        return Host()

    def of(self, node: Node) -> Access | None:
        """None: there is nothing to be seen just now."""
        if node.view is None:
            return access.of_directory(node.path, self._host)
        raw = node.view.raw
        if raw is None or raw.fd < 0:
            return None
        if node.is_link and not access.of_link(node.path, self._host):
            return ROOT_ONLY
        try:
            return access.of(raw.stat(), access.acl(raw.fd))
        except OSError:
            return ROOT_ONLY
