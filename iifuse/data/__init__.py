"""The path of data: locks, first touches, files, background copies. It knows no verb.

Bits in memory change on the event loop only. Threads do nothing but blocking I/O.
"""
