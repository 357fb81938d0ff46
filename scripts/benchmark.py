"""Measure how fast bm is, beside a plain reference in the same run.

Usage: python -m scripts.benchmark BENCH [BENCH ...] [OPTION=VALUE ...] [json=PATH]

Prints a table; the ratio is to the plain reference of the same run, above 1 is better. With
json=PATH one JSON object per row is added to that file, with machine, versions, commit, settings.

Benches ("all" for every one; "BENCH --help" lists its options):
{benches}

For example:
  python -m scripts.benchmark data step json=speed.jsonl
  python -m scripts.benchmark step device=cuda batch_size=256 precisions=[bf16]

Exit code: 0 if all went well, 2 for a wrong argument.
"""

import importlib
import logging
import pkgutil
import sys
import typing
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

from scripts import benchmarks
from scripts.arguments import UsageError, convert
from scripts.benchmarks.parts.measure import append_json, as_table


def main(arguments: Sequence[str]) -> int:
    """Run the benches that the arguments name; returns the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    names = [argument for argument in arguments if "=" not in argument]
    wants_help = {"-h", "--help", "help"} & set(names)
    try:
        chosen = choose([name for name in names if name not in wants_help])
        if wants_help or not chosen:
            print("\n\n".join(str(module.__doc__).strip() for module in chosen) or overview())
            return 0 if wants_help else 2
        options = dict(_split(argument) for argument in arguments if "=" in argument)
        path = options.pop("json", None)
        settings = read_settings(chosen, options)
    except UsageError as error:
        print(f"{error}\nFor help: python -m scripts.benchmark --help", file=sys.stderr)
        return 2
    for module, setting in zip(chosen, settings, strict=True):
        rows = module.run(setting)
        print(as_table(rows), flush=True)
        if path is not None:
            append_json(Path(path), rows, asdict(setting))
    return 0


def available() -> list[str]:
    """Names of all benches."""
    return [module.name for module in pkgutil.iter_modules(benchmarks.__path__) if not module.ispkg]


def choose(names: Sequence[str]) -> list[ModuleType]:
    """Modules of the named benches; none of the others is imported.

    Raises
    ------
    UsageError : there is no such bench.
    """
    known = available()
    for name in names:
        if name not in (*known, "all"):
            raise UsageError(f"There is no bench {name!r}: choose from {', '.join(known)}, all.")
    wanted = known if "all" in names else list(dict.fromkeys(names))
    return [importlib.import_module(f"scripts.benchmarks.{name}") for name in wanted]


def read_settings(chosen: Sequence[ModuleType], options: dict[str, str]) -> list[Any]:
    """Settings of each bench; an option goes to all that have it.

    Raises
    ------
    UsageError : no bench has it, or its value is of another type.
    """
    hints = [typing.get_type_hints(module.Settings) for module in chosen]
    known = sorted({name for hint in hints for name in hint})
    for key in options:
        if key not in known:
            raise UsageError(f"Unknown option {key!r}: choose from {', '.join(known)}, json.")
    return [
        module.Settings(**{k: convert(hint[k], v, k) for k, v in options.items() if k in hint})
        for module, hint in zip(chosen, hints, strict=True)
    ]


def overview() -> str:
    """Help on the script, with the first line of each bench."""
    docs = {name: str(choose([name])[0].__doc__) for name in available()}
    lines = [f"  {name:<11} {doc.splitlines()[0]}" for name, doc in docs.items()]
    return str(__doc__).strip().format(benches="\n".join(lines))


def _split(argument: str) -> tuple[str, str]:
    key, _, value = argument.partition("=")
    if not value.strip():
        raise UsageError(f"Option {key} needs a value: {key}=...")
    return key, value.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
