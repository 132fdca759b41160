"""The thinnest path through everything."""

import os


def test_independent_set_update_copies_only_what_changed(service, volume, place):
    master, shadow = volume("prod/v1"), place / "v1.shadow"
    service.enable("ind", master, shadow)
    service.wait(shadow)
    assert service.read(shadow) == service.read(master) == master.read_bytes()
    service.write(master, 5 * 32768 + 7, b"new" * 11)
    service.write(shadow, 9 * 32768, os.urandom(40000))
    service.flip("s", shadow)
    service.wait(shadow)
    assert service.read(shadow) == service.read(master)
    assert service.status(shadow).copied_chunks == 3
    assert service.stop() == 0
    assert shadow.read_bytes()[: master.stat().st_size] == master.read_bytes()
