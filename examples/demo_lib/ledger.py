"""The application of the demonstration: a bank whose books are kept by SQLite.

    ledger.py DATABASE ACKNOWLEDGED

Makes transactions until SIGTERM. After each one the number of entries that SQLite has promised to
keep is written to the file ACKNOWLEDGED, which is on no volume of the demonstration.
"""

# ruff: noqa: S311  # chance, not secrets

import os
import random
import signal
import sqlite3
import sys
import time

ACCOUNTS = 500
ENTRIES_AT_FIRST = 20_000
PAUSE_S = 0.002

SCHEMA = """
CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
CREATE TABLE entry (
    id INTEGER PRIMARY KEY,
    account INTEGER NOT NULL REFERENCES account,
    amount INTEGER NOT NULL,
    text TEXT NOT NULL
);
CREATE INDEX entry_account ON entry (account);
"""

TRUTHS = """
SELECT (SELECT count(*) FROM entry),
       (SELECT coalesce(max(id), 0) FROM entry),
       (SELECT coalesce(sum(amount), 0) FROM entry),
       (SELECT count(*) FROM account
         WHERE balance <> (SELECT coalesce(sum(amount), 0) FROM entry WHERE account = account.id))
"""
"""Entries, the number of the last one (the same: none is missing), the sum of all amounts (0: each
transaction takes here what it gives there), accounts with a balance that is not the sum of their
entries (0)."""


def transfer(books: sqlite3.Connection) -> None:
    """Move an amount from one account to another: two entries, two balances."""
    payer, payee = random.sample(range(ACCOUNTS), 2)
    amount = random.randrange(1, 10_000)
    for account, change in ((payer, -amount), (payee, amount)):
        text = f"{random.getrandbits(400):0100x}"
        books.execute(
            "INSERT INTO entry (account, amount, text) VALUES (?, ?, ?)", (account, change, text)
        )
        books.execute("UPDATE account SET balance = balance + ? WHERE id = ?", (change, account))


def create(path: str) -> None:
    """New books with some history."""
    books = sqlite3.connect(path)
    books.execute("PRAGMA journal_mode = WAL")
    books.executescript(SCHEMA)
    with books:
        books.executemany("INSERT INTO account VALUES (?, 0)", ((n,) for n in range(ACCOUNTS)))
        for _ in range(ENTRIES_AT_FIRST // 2):
            transfer(books)
    books.close()


def work(path: str, acknowledged: int) -> None:
    """Make transactions until we are told to stop."""
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    books = sqlite3.connect(path, timeout=60, isolation_level=None)
    books.execute("PRAGMA synchronous = FULL")
    while not stopped:
        books.execute("BEGIN IMMEDIATE")
        transfer(books)
        (entries,) = books.execute("SELECT max(id) FROM entry").fetchone()
        books.execute("COMMIT")
        os.pwrite(acknowledged, b"%20d" % entries, 0)
        time.sleep(PAUSE_S)
    books.close()


def main() -> None:
    """The program."""
    path, acknowledged = sys.argv[1:]
    if not os.path.exists(path):
        create(path)
    work(path, os.open(acknowledged, os.O_WRONLY | os.O_CREAT, 0o600))


if __name__ == "__main__":
    main()
