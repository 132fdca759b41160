"""The interface to the kernel. Only this package knows pyfuse3."""
