"""Sets that are attached while their master is in use already."""

import shutil

from harness import CHUNK

SIZE = 40 * CHUNK


def bitmap(shadow):
    return shadow.with_name(shadow.name + ".bmp")


def test_attach_does_not_believe_bits_of_a_device_that_was_written_here_before(
    service, volume, place, attach
):
    """F15: a device gives no sign of having been written, but it was written through us."""
    master = attach(volume("image", SIZE))
    shadow = place / "s"
    service.enable("ind", master, shadow)
    service.wait(shadow)
    service.stop()
    shutil.rmtree(service.state)
    service.start()
    assert service.run("svadm", "-e", master).returncode == 0
    service.write(master, 7 * CHUNK, b"written with no set there")
    assert service.run("iiadm", "--attach", bitmap(shadow)).returncode == 0
    assert "was in use here before" in service.status(shadow).offline_reason
    assert service.run("iiadm", "-R", shadow).returncode == 0
    service.flip("s", shadow)
    service.wait(shadow)
    assert service.read(shadow) == service.read(master)
