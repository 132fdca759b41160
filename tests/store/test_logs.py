"""A syslog that comes and goes."""

import logging
import socket
from contextlib import contextmanager

import pytest

from iifuse import logs


@pytest.fixture
def device(tmp_path, monkeypatch):
    path = tmp_path / "log"
    monkeypatch.setattr(logs, "_DEVICE", str(path))
    return path


@contextmanager
def set_up():
    """The log goes to syslog, and to nobody else."""
    root = logging.getLogger()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(root, "handlers", [])
        patch.setattr(root, "level", root.level)
        logs.set_up(logs.SYSLOG)
        yield
        root.handlers[0].close()


def test_syslog_that_is_gone_costs_lines_and_says_nothing(device, capfd):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(device))
        with set_up():
            logs.log.info("first")
            assert b"first" in listener.recv(4096)
            listener.close()
            logs.log.info("lost")
            device.unlink()
            logs.log.info("lost")
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
                other.bind(str(device))
                logs.log.info("again")
                assert b"again" in other.recv(4096)
    assert capfd.readouterr().err == ""


def test_log_goes_to_syslog_where_there_is_one(device, tmp_path, capfd):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(device))
        assert logs.usual(str(tmp_path)) == logs.SYSLOG
    assert logs.usual(str(tmp_path)) == str(tmp_path / "log")
    assert f"the log goes to {tmp_path}/log" in capfd.readouterr().err
