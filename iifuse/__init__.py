"""iifuse: point-in-time copies of live volumes, presented as files by a FUSE file system."""

__version__ = "0.2.0"
