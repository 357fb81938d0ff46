"""Manners that all scripts share: help, exit codes, and no traceback for what users can mend."""

import functools
import logging
import re
import sys
from collections.abc import Callable, Sequence

from bm.core.messages import DataError

logger = logging.getLogger(__name__)

HELP = {"-h", "--help", "help"}
Main = Callable[[Sequence[str]], int]


def command(
    page: str | None,
    level: int = logging.WARNING,
    needs_arguments: bool = True,
    log_format: str = "%(levelname)s %(message)s",
) -> Callable[[Main], Main]:
    """Make a script's ``main``, which gets the arguments and returns the exit code, well-mannered.

    What users or their data got wrong is one message: exit code 2 for the command line
    (ValueError), 1 for data and files (DataError, OSError); Ctrl-C gives 130. The traceback goes
    to the log, at level DEBUG. Without arguments, where there must be some, the help is printed.

    Parameters
    ----------
    page : the help, which says how to call the script: the docstring of its module.
    level, log_format : of the log on the terminal.
    needs_arguments : without any, nothing can be done.
    """
    found = re.search(r"python -m scripts\.\w+", page or "")
    if found is None:
        raise ValueError("The docstring of a script must say how to call it.")

    def decorate(main: Main) -> Main:
        @functools.wraps(main)
        def polite(arguments: Sequence[str]) -> int:
            logging.basicConfig(level=level, format=log_format, datefmt="%H:%M:%S")
            if HELP & set(arguments) or (needs_arguments and not arguments):
                print(page)
                return 0 if arguments else 2
            try:
                return main(arguments)
            except KeyboardInterrupt:
                print("Interrupted. The same command goes on from what is done.", file=sys.stderr)
                return 130
            except (DataError, OSError) as error:
                logger.debug("Stopped by:", exc_info=True)
                print(error, file=sys.stderr)
                return 1
            except ValueError as error:
                logger.debug("Stopped by:", exc_info=True)
                print(f"{error}\nFor help: {found[0]} --help", file=sys.stderr)
                return 2

        return polite

    return decorate
