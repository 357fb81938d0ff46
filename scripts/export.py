"""Export a trained model, to be shared: weights as safetensors, all else as text, a model card.

Usage: python -m scripts.export sig=SIG out=FOLDER [OPTION=VALUE ...]
       python -m scripts.export checkpoint=PATH out=FOLDER [OPTION=VALUE ...]

  sig=SIG            a trained experiment
  checkpoint=PATH    a checkpoint.th, or the folder that holds one
  out=FOLDER         where to write; it must not exist yet
  licence=TEXT       of the data, where bm doesn't know it

Writes model.safetensors (weights, scales of features, places of sensors), config.json and the model
card README.md, with the accuracies of `scripts.run_eval_probs` and `scripts.controls` if they have
been run. No recording, no file name and no path of this machine is in it; the names of the subjects
are. Check that the licence of the data lets you share what was learned from them.

For example:
  python -m scripts.export sig=557f5f8a out=my-model
  python -m scripts.predict checkpoint=my-model raw=new.fif
  hf upload USER/my-model my-model    # to the hub; then others can use checkpoint=hf://USER/my-model

Exit code: 0 if all went well, 1 if there is nothing to export, 2 for a wrong argument.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from bm.config import default_leaves, flatten
from bm.core.messages import DataError
from bm.decoder import export, load_state
from bm.decoder.share import is_place
from bm.evaluation.statistics import hits, interval
from bm.evaluation.tables import ACCURACY, EVERYONE, METADATA
from bm.studies import registry
from bm.train import main as experiment
from scripts.command import command
from scripts.evaluate import CONTROLS_TABLE, FOLDER
from scripts.options import UsageError, read_own

UNKNOWN = "unknown: ask those who recorded the data before you share this model"
SIMULATED = "none needed: the listeners are simulated"


@dataclass(frozen=True)
class Options:
    """What the command line asks for (see above)."""

    sig: str | None = None
    checkpoint: Path | None = None
    out: Path | None = None
    licence: str | None = None


@command(__doc__)
def main(arguments: Sequence[str]) -> int:
    """Export what the arguments name; returns the exit code."""
    options = read_own(Options, arguments)
    if (options.sig is None) == (options.checkpoint is None) or options.out is None:
        raise UsageError("Say which model and where to: sig=SIG (or checkpoint=PATH) out=FOLDER")
    if options.out.exists():
        raise UsageError(f"{options.out} exists already: name a new folder.")
    path = options.checkpoint or experiment.dora.dir / experiment.dora.xps / str(options.sig)
    state = load_state(path)
    if "history" not in state:
        raise DataError(f"{path} is an exported model already.")
    if state.get("montages") is None:
        raise DataError(
            f"{path} doesn't name its sensors (it was imported, or made by an older version): "
            "another recording's could not be matched with them."
        )
    evaluation = (path if path.is_dir() else path.parent) / FOLDER
    card = write_card(state, evaluation, options.out.name, options.licence)
    export(state, options.out, card)
    size = sum(file.stat().st_size for file in options.out.iterdir()) / 1e6
    print(f"{options.out}: {size:.1f} MB.")
    print(f"Next: python -m scripts.predict checkpoint={options.out} raw=FILE")
    print(f"To share it on the Hugging Face hub: hf upload USER/{options.out.name} {options.out}")
    return 0


def write_card(
    state: Mapping[str, Any], evaluation: Path, name: str, licence: str | None = None
) -> str:
    """Text of the model card.

    Parameters
    ----------
    state : of the checkpoint.
    evaluation : folder with the tables of an evaluation, if there was one.
    name : of the model.
    licence : of the data; None: as far as it is known.
    """
    selections = state["config"]["selections"]
    chosen = {one: selections[one] for one in state["config"]["dset"]["selections"]}
    text = Path(__file__).with_name("model_card.md.j2").read_text(encoding="utf-8")
    template = jinja2.Template(text, trim_blocks=True, lstrip_blocks=True)
    return template.render(
        name=name,
        licences={one: licence or find_licence(values) for one, values in chosen.items()},
        is_simulated=all(values["study"] in ("synthetic", "fake") for values in chosen.values()),
        accuracies=read_accuracies(evaluation),
        controls=_read(evaluation / CONTROLS_TABLE),
        state=state,
        dset=state["config"]["dset"],
        montages=[len(one["names"]) for one in state["montages"]],
        n_parameters=sum(weight.numel() for weight in state["best_state"].values()),
        changed=changed_keys(state["config"]),
    )


def find_licence(selection: Mapping[str, Any]) -> str:
    """Licence of the data of a selection, as far as it is known."""
    study = selection["study"]
    if study in ("synthetic", "fake"):
        return SIMULATED
    facts = getattr(registry.get(study), "facts", None)
    if facts is not None:
        return f"{facts.licence} (doi:{facts.doi})"
    root = selection.get("root") or selection.get("path")
    description = Path(root or "") / "dataset_description.json"
    if root and description.exists():
        told = json.loads(description.read_text(encoding="utf-8"))
        return str(told.get("License") or UNKNOWN)
    return UNKNOWN


def changed_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """What differs from the defaults, but for where things are on this machine."""
    defaults = default_leaves()
    return {
        key: value
        for key, value in flatten(config).items()
        if not is_place(key) and defaults.get(key) != value
    }


def read_accuracies(evaluation: Path) -> list[dict[str, Any]]:
    """Accuracies of everyone with chance, and intervals over subjects where there are enough."""
    table, segments = _read(evaluation / ACCURACY), _read(evaluation / METADATA)
    found = []
    for row in [row for row in table if row["subject"] == EVERYONE]:
        ranks, subjects = zip(*((one["rank"], one["subject"]) for one in segments), strict=True)
        within = interval(hits(pd.Series(ranks), int(row["k"])), subjects)
        found.append({**row, "interval": within})
    return found


def _read(path: Path) -> list[dict[str, Any]]:
    """Rows of a table; none if there is no such file."""
    if not path.exists():
        return []
    return [
        {str(key): value for key, value in row.items()}
        for row in pd.read_csv(path).to_dict("records")
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
