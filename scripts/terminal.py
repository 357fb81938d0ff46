"""What a terminal can show: colours, where they are wanted and nowhere else."""

import os
import sys

CODES = {"green": 32, "yellow": 33, "red": 31}


def coloured(text: str, colour: str) -> str:
    """Text in a colour on a terminal; plain in a file or a pipe, and where NO_COLOR is set."""
    if os.environ.get("NO_COLOR") or not sys.stdout.isatty():
        return text
    return f"\033[{CODES[colour]}m{text}\033[0m"
