"""Code blocks of the pages, and the commands in them."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN_BY = {
    "adding-a-feature.md": "test_docs_feature.py",
    "adding-a-study.md": "test_plugins.py",
    "models.md": "test_docs_models.py",
    "predict.md": "test_decoder.py",
}
"""Pages whose code is run, as it is written, by a test of their own; others: test_docs_run.py."""
SHELL = ("bash", "sh")
FENCE = re.compile(r"^([ ]*)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of code in a page: its language ("" for none) and its text."""

    page: str
    language: str
    text: str


def blocks_of(path: Path) -> list[Block]:
    """All blocks of a page, without their indent."""
    text = path.read_text(encoding="utf-8")
    return [
        Block(path.name, language, re.sub(f"^{indent}", "", body, flags=re.MULTILINE))
        for indent, language, body in FENCE.findall(text)
    ]


def commands_of(block: Block) -> list[list[str]]:
    """Words of each command of a block for the shell, without comments."""
    joined = block.text.replace("\\\n", " ")
    words = [shlex.split(line, comments=True) for line in joined.splitlines()]
    return [line for line in words if line]


def is_shell(block: Block) -> bool:
    """Whether a block holds commands."""
    first = block.text.lstrip().split(" ")[0]
    return block.language in SHELL or (not block.language and first in ("dora", "python", "pip"))
