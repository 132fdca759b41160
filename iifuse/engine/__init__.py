"""Sets at work: locks, first touches, background copies, points in time; trio, no pyfuse3.

Bits in memory change on the event loop only; threads do nothing but blocking I/O.
"""
