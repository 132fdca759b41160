"""The edge to the kernel: names and bytes in, bytes out; the only place that knows pyfuse3."""
