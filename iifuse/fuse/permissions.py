"""Who may use a node of the mount: the kernel checks, and asks once a second (K10)."""

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from iifuse.engine.lookout import Lookout
from iifuse.fuse.namespace import Node
from iifuse.store import access
from iifuse.store.access import ROOT_ONLY, Access

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 0.3
"""For so long what was found counts, and for a second more in the kernel."""


class Permissions:
    """Looks at the real directories, in threads; one that does not answer keeps what it had.

    `lists`: does the kernel go by access control lists? Else where there is one nobody but owner
    and root is let in, as the group's bits say what its mask says.
    """

    def __init__(self) -> None:
        self.lists = False
        self._lookout = Lookout()

    async def look(self, nodes: Sequence[Node]) -> None:
        """Before `of` or `list_of` of these."""
        how: dict[str, Callable[[], Access | bool]] = {}
        now = time.monotonic()
        for node in nodes:
            if now - node.looked < LOOK_SECONDS:
                continue  # the kernel asks for attributes and for the list, one after the other
            if node.view is None:
                how[node.path] = partial(access.of_directory, node.path)
            elif node.is_link:
                how[node.path] = partial(access.of_link, node.path)
        if not how:
            return
        try:
            found = await self._lookout.look(how)
        except Exception as error:  # noqa: BLE001 - no thread to be had, for instance
            log.debug("directories cannot be looked at: %s", error)
            return
        for node in nodes:
            answer = found.get(node.path)
            if answer is None:
                continue
            node.looked = now  # not before: whoever asks meanwhile waits for an answer too
            if isinstance(answer, Access):
                node.access = answer
            else:
                node.is_closed = not answer

    def of(self, node: Node) -> Access:
        """Owner and mode to be shown."""
        found = self._whole(node)
        if found.acl is None or self.lists:
            return found
        return Access(found.uid, found.gid, found.mode & ROOT_ONLY.mode)

    def list_of(self, node: Node) -> bytes | None:
        """The access control list."""
        return self._whole(node).acl

    @staticmethod
    def _whole(node: Node) -> Access:
        if node.view is None:
            return node.access
        if node.is_closed:
            return ROOT_ONLY
        try:
            return node.view.access()
        except OSError:
            return ROOT_ONLY
