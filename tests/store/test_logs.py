"""A syslog that comes and goes."""

import logging
import socket

import pytest

from iifuse import logs


@pytest.fixture
def device(tmp_path, monkeypatch):
    path = tmp_path / "log"
    monkeypatch.setattr(logs, "_DEVICE", str(path))
    return path


@pytest.fixture
def logger():
    made = logging.getLogger("syslog.test")
    made.propagate = False
    made.setLevel(logging.INFO)
    yield made
    for handler in made.handlers[:]:
        handler.close()
        made.removeHandler(handler)


def test_syslog_that_is_gone_costs_lines_and_says_nothing(device, logger, capfd):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(device))
        logger.addHandler(logs._handler(logs.SYSLOG))
        logger.info("first")
        assert b"first" in listener.recv(4096)
    logger.info("lost")
    device.unlink()
    logger.info("lost")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(device))
        logger.info("again")
        assert b"again" in listener.recv(4096)
    assert capfd.readouterr().err == ""


def test_log_goes_to_syslog_where_there_is_one(device, tmp_path, capfd):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(device))
        assert logs.usual(str(tmp_path)) == logs.SYSLOG
    assert logs.usual(str(tmp_path)) == str(tmp_path / "log")
    assert f"the log goes to {tmp_path}/log" in capfd.readouterr().err
