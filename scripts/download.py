"""Download a study, or link it, and check it.

Usage: python -m scripts.download NAME [KEY=VALUE ...]

NAME is gwilliams2022, broderick2019, brennan2019 or schoffelen2019; or another dataset:
osf:ID, zenodo:RECORD, dryad:DOI, or the URL of a file.

  path=FOLDER            folder of the study; ./data/NAME if not given (needed for other datasets)
  subjects=[01,02]       files of these people only
  modality=audio         files of these people only: audio or visual (schoffelen2019)
  local_path=FOLDER      the data are there already: link them, download nothing
  verify=true            compare checksums and not sizes alone; fetch again what differs
  refresh=true           ask for the lists of files anew
  parallel=4             files that come at the same time
  server.SOURCE=URL      reach a source (osf, dryad, donders, ...) by another URL

Whatever came stays: the same command goes on where it stopped. If all is there, nothing is asked of
the network. Logins come from the environment or ~/.netrc; see docs/downloads.md.

For example:
  python -m scripts.download gwilliams2022 'subjects=[01,02]' path=/data/gwilliams2022

Exit code: 0 if all is there, 1 if something is not, 2 for a wrong argument.
"""

import logging
import sys
from collections.abc import Sequence
from typing import Any

from bm.core.messages import did_you_mean
from bm.studies.download import Connection, download
from bm.studies.downloads.studies import PLANS
from scripts.command import command

TEXTS = ("path", "modality", "local_path")
SWITCHES = ("verify", "refresh")
KEYS = (*TEXTS, *SWITCHES, "subjects", "parallel")
SERVER = "server."


class UsageError(ValueError):
    """The command line isn't understood."""


@command(__doc__, logging.INFO)
def main(arguments: Sequence[str]) -> int:
    """Download what the arguments name; returns the exit code."""
    options = read_options(arguments)
    summary = download(**options)
    print(f"{options['name']}: {summary}.")
    return 0


def read_options(arguments: Sequence[str]) -> dict[str, Any]:
    """Arguments of `download` as the command line gives them.

    Values stay text: YAML would take subject 01 for the number 1.

    Raises
    ------
    UsageError : an unknown or repeated key, or a value that makes no sense.
    """
    name, *pairs = arguments
    values: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if key not in KEYS and not key.startswith(SERVER):
            raise UsageError(f"Unknown option {key!r}. {did_you_mean(key, [*KEYS, SERVER])}")
        if not equals or not value.strip():
            raise UsageError(f"Option {key} needs a value: {key}=...")
        if key in values:
            raise UsageError(f"Option {key} is given twice.")
        values[key] = value.strip()
    if "path" not in values and name not in PLANS:
        raise UsageError(f"{name!r} needs a folder: path=FOLDER")
    options: dict[str, Any] = {"name": name, "path": f"data/{name}"}
    options |= {key: values[key] for key in TEXTS if key in values}
    options |= {key: _switch(key, values[key]) for key in SWITCHES if key in values}
    if "subjects" in values:
        labels = [label.strip(" '\"") for label in values["subjects"].strip("[]").split(",")]
        options["subjects"] = [label for label in labels if label]
    servers = {k.removeprefix(SERVER): url for k, url in values.items() if k.startswith(SERVER)}
    n_parallel = values.get("parallel", "4")
    if not n_parallel.isdecimal() or int(n_parallel) < 1:
        raise UsageError(f"parallel={n_parallel}: give a number of files, such as 4.")
    options["connection"] = Connection(servers, int(n_parallel))
    return options


def _switch(key: str, value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise UsageError(f"{key}={value}: give true or false.")
    return value.lower() == "true"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
