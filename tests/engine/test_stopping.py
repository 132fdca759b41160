"""The end of the service: what programs have written to mapped files gets its time to arrive."""

import errno
import threading
from types import SimpleNamespace

import pytest
import trio

from iifuse import stopping


class Mount:
    """One file whose volume does not answer, and others that wait until all have been asked for."""

    def __init__(self, views):
        self.asked, self.all_asked = [], threading.Barrier(views, timeout=30)

    def holders(self, _view):
        return []

    def sync_mounted(self, views, _limit_s):
        self.asked += [view.path for view in views]
        self.all_asked.wait()
        if views[0].path == "/hung":
            raise OSError(errno.ETIMEDOUT, "no answer within 60 s", "/hung")


async def nobody():
    await trio.sleep_forever()
    yield 0


@pytest.mark.finding("K8.3")
async def test_file_that_hangs_takes_no_time_of_others_at_the_end(caplog, loop):
    """They are asked for side by side, and what could not arrive is told."""
    paths = ["/hung", "/a", "/b"]
    views = {
        path: SimpleNamespace(path=path, opens=1, loop=loop, wait_closed=trio.sleep)
        for path in paths
    }
    instance, mount = SimpleNamespace(views=views, loop=loop), Mount(len(paths))
    assert not await stopping.prepare(instance, mount, 0.01, nobody())
    assert sorted(mount.asked) == sorted(paths)
    assert "may be lost" in caplog.text
    assert "/hung" in caplog.text
