"""The blocks of README.md and docs/ that a reader may copy, and the comments before them that say how they are tested.

    <!-- shown: needs several GPUs -->    the block is not run, and why
    <!-- fails: 2 -->                     its last command ends with this exit code
    <!-- output -->                       what the failing block before it prints; `...` stands for any words
    <!-- layout: imagefolder -->          paths of files that are read as this format
    <!-- file: apps/text_scoring.py -->   a file that the reader writes into a checkout of Graft

A block of ```bash, ```python or ```yaml is a snippet. Every snippet is run unless it is marked `shown`: see
tests/integration/test_documented_commands.py.
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SNIPPETS = ("bash", "python", "yaml")
LANGUAGES = (*SNIPPETS, "jinja", "text")
MARKS = ("shown", "fails", "output", "layout", "file")
FENCE = re.compile(r"(?ms)^```(\w*)\n(.*?)^```$")
MARK = re.compile(r"<!-- (\w+)(?:: (.+?))? -->\n\Z")


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    text: str
    mark: str = ""
    note: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    text, found = page.read_text(), []
    for match in FENCE.finditer(text):
        mark = MARK.search(text, 0, match.start())
        marked = (mark[1], mark[2] or "") if mark and mark[1] in MARKS else ("", "")
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(str(page.relative_to(ROOT)), line, match[1], match[2], *marked))
    return found


def snippets() -> list[Block]:
    return [block for page in pages() for block in blocks(page) if block.language in SNIPPETS]


def commands(block: Block) -> list[str]:
    """The lines of a bash block, without comments. A backslash at the end joins a line with the next."""
    lines = re.sub(r"\\\n\s*", "", block.text).splitlines()
    return [line.split(" #")[0].strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
