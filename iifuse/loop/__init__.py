"""How the event loop waits: for requests, for threads, for time limits; trio, no pyfuse3."""
