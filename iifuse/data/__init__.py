"""The data path: locks, first touches, files, background copies. It knows no verb and no registry.

Bits in memory change on the event loop only; threads do nothing but blocking I/O.
"""
