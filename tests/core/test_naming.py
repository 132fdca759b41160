"""Which set a name means."""

from types import SimpleNamespace

import pytest

from iifuse import errors
from iifuse.core import naming
from iifuse.core.state import Custody

MOUNT = "/mnt/ii"


def _set(shadow, master, bitmap, custody=Custody.LOCAL, group=None):
    header = SimpleNamespace(shadow=shadow, master=master, bitmap=bitmap, custody=custody)
    return SimpleNamespace(header=header, group=group)


SETS = {
    one.header.shadow: one
    for one in (
        _set("/b/vol01", "/p/vol01", "/m/vol01", group="Night 1"),
        _set("/b/vol02", "/p/vol02", "/m/vol02"),
        _set("/c/vol02", "/p/vol02", "/m/vol02.c"),
        _set("/b/lent", "/p/other", "/m/lent", Custody.IMPORTED),
    )
}
FOUND = {
    "/b/vol01": "/b/vol01",
    "/p/vol01": "/b/vol01",
    "/m/vol01": "/b/vol01",
    "/mnt/ii/b/vol01": "/b/vol01",
    "/mnt/ii/p/vol01": "/b/vol01",
    "/c/vol02": "/c/vol02",
    "/m/vol02.c": "/c/vol02",
    "/b/lent": "/b/lent",
}


@pytest.mark.parametrize("name", FOUND)
def test_set_is_found_by_each_of_its_names(name):
    assert naming.find(SETS, name, MOUNT) is SETS[FOUND[name]]


@pytest.mark.parametrize("name", ["/p/vol02", "/mnt/ii/p/vol02"])
def test_master_of_several_sets_is_refused_and_lists_them(name):
    with pytest.raises(errors.UsageError) as caught:
        naming.find(SETS, name, MOUNT)
    assert str(caught.value).endswith("name one by its shadow: /b/vol02, /c/vol02")


@pytest.mark.parametrize("name", ["/p/other", "/mnt/ii", "/mnt/iii/b/vol01", "/"])
def test_what_no_set_has_is_not_found(name):
    """The master of an imported shadow is on another host."""
    with pytest.raises(errors.NotFound, match="no such set"):
        naming.find(SETS, name, MOUNT)


@pytest.mark.parametrize(
    ("name", "near"),
    [("/b/vol1", "/b/vol01"), ("/c/vol20", "/c/vol02"), ("/root/vol01", "/b/vol01")],
)
def test_slip_of_the_pen_is_answered_with_the_near_name(name, near):
    with pytest.raises(errors.NotFound) as caught:
        naming.find(SETS, name, MOUNT)
    assert f"did you mean {near}?" in caught.value.todo


def test_name_of_a_group_is_told_from_a_set():
    with pytest.raises(errors.NotFound) as caught:
        naming.find(SETS, "/root/Night 1", MOUNT)
    assert str(caught.value).endswith("; Night 1 is a group: -g Night\\ 1; 'iiadm -l' lists all")


def test_last_part_of_several_sets_names_them():
    with pytest.raises(errors.NotFound, match=r"did you mean /b/vol02 or /c/vol02\?"):
        naming.find(SETS, "/home/somebody/far/away/vol02", MOUNT)


def test_one_set_under_two_names_is_named_twice():
    with pytest.raises(errors.UsageError, match="named twice"):
        naming.find_all(SETS, ["/b/vol01", "/p/vol01"], MOUNT)


def test_volume_named_below_the_root_mount_is_itself():
    assert naming.volume_path("/", "/b/vol01") == "/b/vol01"
