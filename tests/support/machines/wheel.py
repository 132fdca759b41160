"""A wheel of this project without what it depends on, made in a moment and offline."""

import base64
import ensurepip
import hashlib
import shutil
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


PIP = [
    *Path("/usr/share/python-wheels").glob("pip-*.whl"),
    *Path(ensurepip.__file__).parent.glob("_bundled/pip-*.whl"),
][0]
"""The pip that comes with Python."""


def make(directory: Path, version: str) -> None:
    """The programs as they are, under this version; and pip."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    scripts = "".join(f"{name} = {entry}\n" for name, entry in project["scripts"].items())
    info = f"iifuse-{version}.dist-info"
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: iifuse\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{scripts}",
    }
    for package, source in (("iifuse", "iifuse"), ("iitools", "tools")):
        for path in (ROOT / source).rglob("*.py"):
            files[f"{package}/{path.relative_to(ROOT / source)}"] = path.read_text()
    record = "".join(f"{name},sha256={_digest(text)},\n" for name, text in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    directory.mkdir(exist_ok=True)
    shutil.copy(PIP, directory)
    with zipfile.ZipFile(directory / f"iifuse-{version}-py3-none-any.whl", "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
