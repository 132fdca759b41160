"""Who may use a file or directory of the mount. The kernel checks by what was seen last (K10).

A request for attributes must not wait for the volume or the real directory, which may be on a disk
that does not answer (K8). So those are looked at when a file comes to the mount, when it is opened,
and every few seconds.
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
"""Seconds between two looks at everything. The kernel keeps attributes for one more second, so a
change is visible within ten."""

Tell = Callable[[list[Node]], Awaitable[None]]
"""Lets the kernel forget the attributes of nodes."""


class Permissions:
    """Looks at the real volumes and directories. If one does not answer, its access stays.

    `lists`: does the kernel apply access control lists? If not, a file that has one is for its
    owner and root only, because the group's bits of its mode are then the mask of the list.
    """

    def __init__(self, namespace: Namespace, lookout: Lookout) -> None:
        self.lists = False
        self._namespace, self._lookout = namespace, lookout

    async def keep_fresh(self, tell: Tell) -> None:
        """Look at everything now and then, as long as the service runs."""
        while True:
            await trio.sleep(EVERY_S)
            changed = await self.look(self._namespace.nodes())
            if changed:
                await tell(changed)

    async def look(self, nodes: Iterable[Node]) -> list[Node]:
        """Look at nodes in a thread. Returns those whose access has changed."""
        sight, before = _Sight(), {node: node.access for node in nodes}
        how = {node.path: partial(sight.of, node) for node in before}
        try:
            found = await self._lookout.look(how)
        except Exception as error:  # noqa: BLE001 - for example, there is no thread
            log.debug("owners and modes cannot be looked at: %s", error)
            return []
        for node in before:
            node.access = found.get(node.path) or node.access
        return [node for node, access in before.items() if node.access != access]

    def of(self, node: Node) -> Access:
        """Owner and mode that the mount shows for a node."""
        found = node.access
        if found.acl is None or self.lists:
            return found
        return Access(found.uid, found.gid, found.mode & ROOT_ONLY.mode)


class _Sight:
    """One look at many nodes. The list of mounts is read only once for all of them."""

    @cached_property
    def _host(self) -> Host:
        return Host()

    def of(self, node: Node) -> Access | None:
        """The access to the real file of a node; None: it cannot be seen now."""
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
