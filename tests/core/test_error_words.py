"""What the kernel answers is told in words, with the path, and without its number."""

import errno
import os

import pytest

from iifuse import errors

WORDS = {
    (errno.ENOSPC, "/v"): "no room on the file system of /v",
    (errno.ENOSPC, None): "no room on its file system",
    (errno.EDQUOT, "/v"): "the quota of disk space is used up at /v",
    (errno.EIO, "/v"): "/v: Input/output error",
    (errno.EIO, None): "Input/output error",
}


@pytest.mark.parametrize(("code", "path"), WORDS)
def test_failed_call_is_told_in_words(code, path):
    assert errors.words(OSError(code, os.strerror(code), path)) == WORDS[code, path]


def test_what_has_words_of_its_own_keeps_them():
    assert errors.words(errors.BadBitmap("/b", "is damaged")) == "/b: is damaged"
    assert errors.words(OSError("short read")) == "short read"
