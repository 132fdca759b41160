"""Loop devices, file systems and mortal services for the tests here."""

from devices import attach, mounted

__all__ = ["attach", "mounted"]
