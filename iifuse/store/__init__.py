"""Blocking input and output on volumes, on bitmap volumes and in the state directory."""
