"""The control socket: what may be asked of a running service, and how."""
