"""Turn a checkpoint of the published code into one that bm can load. No code in it is run.

Usage: python -m scripts.import_published CHECKPOINT OUT [KEY=VALUE ...]

CHECKPOINT is the published file (checkpoint.th), OUT the file to write. Arguments KEY=VALUE take
the place of values in its configuration, such as where studies are. The checkpoint names neither
recordings nor subjects: to be evaluated it needs all the data that it was trained on, in the order
of the study, and its configuration is set to read them as the published code did.

For example:
  python -m scripts.import_published old/checkpoint.th imported.pt \
      study_paths.default.gwilliams2022=/data/gwilliams2022
  python -m scripts.run_eval_probs checkpoint=imported.pt out=results

Exit code: 0 if all went well, 1 if the file can't be imported, 2 for a wrong argument.
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from bm.checkpoint import write_checkpoint
from bm.published import import_published
from scripts.arguments import UsageError
from scripts.command import command


@command(__doc__, logging.INFO)
def main(arguments: Sequence[str]) -> int:
    """Import what the arguments name; returns the exit code."""
    names = [argument for argument in arguments if "=" not in argument]
    if len(names) != 2 or Path(names[1]).exists():
        exists = f"{names[1]} exists already. " if len(names) == 2 else ""
        raise UsageError(f"{exists}Give two files: CHECKPOINT OUT [KEY=VALUE ...]")
    source, out = (Path(name).expanduser() for name in names)
    dotted = [argument for argument in arguments if "=" in argument]
    overrides: Any = OmegaConf.to_container(OmegaConf.from_dotlist(dotted))
    state = import_published(source, overrides)
    write_checkpoint(out, state)
    n_parameters = sum(weight.numel() for weight in state["models"].values())
    n_recordings, n_sensors = state["scaler"]["centre"].shape
    print(
        f"{out}: {n_parameters:,} weights, scales of {n_recordings} recordings of up to "
        f"{n_sensors} sensors, {len(state['history'])} epochs."
    )
    print(f"Next: python -m scripts.run_eval_probs checkpoint={out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
