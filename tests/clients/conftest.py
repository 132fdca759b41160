"""Loop devices, file systems and mortal services for the tests here."""

from devices import attach, mortal_services, mounted, service_seconds

__all__ = ["attach", "mortal_services", "mounted", "service_seconds"]
