"""Blocking input and output on volumes, bitmap volumes and the state directory; no trio."""
