"""What the manual and the README tell people to type, taken from their sources.

A block is what stands between `.Bd -literal` and `.Ed`, or behind `.Dl`. In it a line with a prompt
(`# `, `app# `, `backup# `) is typed on that host; `> `, a backslash, `|` and `&&` go on with it,
and all else is what the programs say. A block that begins with `# /etc/` is the content of a file.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted((ROOT / "man").glob("*.[0-9]"))

_GOES_ON = ("\\", "|", "&&")
_PROMPT = re.compile(r"(?P<host>app|backup|)# *(?!/etc/)(?P<typed>\S.*)")


@dataclass
class Typed:
    """A command, the host that it is typed on ('' where there is one), and what it is to say."""

    host: str
    command: str
    says: list[str] = field(default_factory=list)


@dataclass
class Block:
    """Commands that stand together in `section` of a page."""

    section: str
    typed: list[Typed]


def blocks(page: Path) -> list[Block]:
    """Those with something to type, in their order."""
    section, found, lines = "", [], None
    for line in page.read_text().splitlines():
        if line.startswith((".Sh ", ".Ss ")):
            section = line[4:]
        elif line.startswith(".Dl "):
            found.append(Block(section, _typed([line[4:]])))
        elif line.startswith(".Bd -literal"):
            lines = []
        elif line == ".Ed":
            found.append(Block(section, _typed(lines or [])))
            lines = None
        elif lines is not None:
            lines.append(line)
    return [block for block in found if block.typed]


def _typed(lines: list[str]) -> list[Typed]:
    found: list[Typed] = []
    for raw in lines:
        line = _plain(raw)
        prompt = _PROMPT.fullmatch(line)
        if prompt:
            found.append(Typed(prompt["host"], prompt["typed"]))
        elif line.startswith("> ") or (found and found[-1].command.endswith(_GOES_ON)):
            found[-1].command += "\n" + line.removeprefix("> ")
        elif found and line.strip():
            found[-1].says.append(line.strip())
    return found


def _plain(line: str) -> str:
    """What a reader of the page sees of a literal line."""
    for sign, plain in (("\\e", "\\"), ("\\&", ""), ("\\-", "-")):
        line = line.replace(sign, plain)
    return line


def fenced(text: str, language: str) -> list[str]:
    """The code blocks of a Markdown text."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def files(page: str) -> dict[str, str]:
    """Path -> content of each file that a page shows."""
    text = (ROOT / "man" / page).read_text()
    shown = re.findall(r"^\.Bd -literal.*\n# (/.+)\n((?:.*\n)*?)\.Ed$", text, re.MULTILINE)
    return {name: _plain(content) for name, content in shown}


def commands(page: str, section: str) -> list[str]:
    """All that a section of a page has to type."""
    found = [block for block in blocks(ROOT / "man" / page) if block.section == section]
    return [typed.command for block in found for typed in block.typed]
