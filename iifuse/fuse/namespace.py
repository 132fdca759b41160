"""The tree of the mount: volumes as files under their absolute paths, and directories above them.

Inode numbers are made from the paths, so that they are the same after a restart of the service.
"""

import os
from collections.abc import Iterator
from hashlib import blake2b
from typing import Final

from iifuse.data.view import View
from iifuse.store.access import ROOT_ONLY

ROOT: Final = 1
_INODE_BYTES: Final = 7  # a file handle is an inode number and a flag bit, in 64 bits


class Node:
    """A file, or a directory (`view` is None).

    `access`: who may use it, as the last look has shown. `is_link`: the volume's path is a link.
    """

    __slots__ = ("access", "children", "inode", "is_link", "name", "parent", "view")

    def __init__(self, inode: int, name: bytes, parent: "Node | None", view: View | None) -> None:
        self.inode, self.name, self.parent, self.view = inode, name, parent, view
        self.children: dict[bytes, Node] = {}
        self.access = ROOT_ONLY
        self.is_link = False

    @property
    def path(self) -> str:
        """The path of the volume or directory that it stands for."""
        above = self.parent.path.rstrip("/") if self.parent is not None else ""
        return f"{above}/{os.fsdecode(self.name)}"

    def up(self) -> "Iterator[Node]":
        """The node itself and every directory above it."""
        yield self
        if self.parent is not None:
            yield from self.parent.up()


class Namespace:
    """The tree. A directory exists as long as there is a file below it."""

    def __init__(self) -> None:
        self.root = Node(ROOT, b"", None, None)
        self._nodes: dict[int, Node] = {ROOT: self.root}
        self.files: dict[int, View] = {}
        """The files by inode number. A read or write needs only this table."""

    def node(self, inode: int) -> Node | None:
        """The node of an inode number, if it is still there."""
        return self._nodes.get(inode)

    def nodes(self) -> list[Node]:
        """All directories and files."""
        return list(self._nodes.values())

    def views(self) -> list[View]:
        """All files."""
        return list(self.files.values())

    def inode(self, view: View) -> int | None:
        """The inode number of a file, if it is still there."""
        return next((inode for inode, file in self.files.items() if file is view), None)

    def add(self, view: View) -> Node:
        """Put a file, and the directories above it, into the tree."""
        node, path = self.root, b""
        *above, name = os.fsencode(view.path).strip(b"/").split(b"/")
        for part in above:
            path += b"/" + part
            node = node.children.get(part) or self._add(node, part, path, None)
        node = self._add(node, name, path + b"/" + name, view)
        self.files[node.inode] = view
        return node

    def _add(self, parent: Node, name: bytes, path: bytes, view: View | None) -> Node:
        inode = _inode(path)
        while inode in self._nodes:
            inode += 1
        node = Node(inode, name, parent, view)
        parent.children[name] = self._nodes[inode] = node
        return node

    def remove(self, view: View) -> Iterator[tuple[int, bytes]]:
        """Remove a file and the directories that are empty then. Yields (parent inode, name)."""
        inode = self.inode(view)
        assert inode is not None
        del self.files[inode]
        node: Node | None = self._nodes[inode]
        while node is not None and node.parent is not None and not node.children:
            del self._nodes[node.inode]
            del node.parent.children[node.name]
            yield node.parent.inode, node.name
            node = node.parent


def _inode(path: bytes) -> int:
    digest = blake2b(path, digest_size=_INODE_BYTES).digest()
    return int.from_bytes(digest, "little") | 1 << 8  # never the root's number
