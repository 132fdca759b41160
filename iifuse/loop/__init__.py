"""How the event loop waits for requests, for threads and for time limits. It uses trio."""
