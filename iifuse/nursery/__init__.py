"""A process that holds no volume and forks children for calls that may never return.

A process that has a file of a file server open that has stopped can start no other process: the
new one closes what it has inherited, which asks that server. So the service starts this one before
it opens any volume, and starts nothing itself from then on. Each child does one thing and ends; one
that hangs is left behind, and nobody waits for it.

The package knows no event loop: a caller waits in a thread.
"""
