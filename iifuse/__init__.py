"""iifuse: point-in-time copies of live volumes, presented as files by a FUSE file system."""

import os

__version__ = "0.3.0"

# Read by numpy when it is loaded: a second thread for matrices, which we have none of, would take
# 40 MiB, and the service keeps its memory locked.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
