"""What scripts print: findings, in colours where they are wanted and nowhere else."""

import os
import sys
from dataclasses import dataclass

CODES = {"green": 32, "yellow": 33, "red": 31}
COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it is ("ok", "warn", "fail"), and what to do."""

    what: str
    state: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        remedy = f"\n{'':19}-> {self.remedy}" if self.remedy else ""
        state = coloured(f"{self.state:<5}", COLOURS[self.state])
        return f"{state} {self.what:<12} {self.text}{remedy}"


def coloured(text: str, colour: str) -> str:
    """Text in a colour on a terminal; plain in a file or a pipe, and where NO_COLOR is set."""
    if os.environ.get("NO_COLOR") or not sys.stdout.isatty():
        return text
    return f"\033[{CODES[colour]}m{text}\033[0m"
