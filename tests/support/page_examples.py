"""The examples of a manual page, as somebody types them from it."""

import re
from pathlib import Path

PAGES = Path(__file__).resolve().parents[2] / "man"


def files(page: str) -> dict[str, str]:
    """Path -> content of each file that a page shows: an example that begins with `# /path`."""
    text = (PAGES / page).read_text()
    shown = re.findall(r"^\.Bd -literal.*\n# (/.+)\n((?:.*\n)*?)\.Ed$", text, re.MULTILINE)
    return {name: content.replace("\\e", "\\") for name, content in shown}


def commands(page: str, heading: str) -> list[str]:
    """What a section of a page has after the prompt of root."""
    section = (PAGES / page).read_text().partition(f" {heading}\n")[2]
    section = re.split(r"\n\.S[hs] ", section)[0]
    return re.findall(r"^(?:\.Dl )?# ([^/].*)$", section, re.MULTILINE)
