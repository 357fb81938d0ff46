# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,-all
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # First steps
#
# From recordings to a decoder of speech and back to the head, on **simulated** listeners, in about
# a minute. Every step is the one that `dora run` takes; with your own data only the selection is
# another ([docs/your-own-data.md](../docs/your-own-data.md)).

# %% tags=["parameters"]
root = ".."  # of the repository; cache and outputs lie below it
study = "fake"  # two simulated listeners of a synthesised story
n_minutes = 4  # of the story
n_epochs = 5

# %%
# %matplotlib inline
import os

os.chdir(root)

from pathlib import Path

from bm.build import build_features, build_recordings, build_solver
from bm.config import from_hydra
from bm.train import main
from bm.viz import plot_events
from scripts.evaluate import evaluate_solver
from scripts.grid_figures import draw_attention, draw_sentence

# %% [markdown]
# ## An experiment
#
# Its arguments are those of `dora run`; all others have the defaults of `conf/config.yaml`. The
# signature names it.

# %%
arguments = [
    "preset=demo",
    f"dset.selections=[{study}]",
    f"+selections.{study}.n_minutes={n_minutes}",
    "dset.features_params.MelSpectrum.n_mels=16",
    "simpleconv.hidden.meg=32",
    "simpleconv.depth=4",
    "simpleconv.merger_channels=16",
    "simpleconv.merger_pos_dim=32",
    "simpleconv.initial_linear=16",
    "optim.batch_size=32",
    f"optim.epochs={n_epochs}",
]
xp = main.get_xp(arguments)
config = from_hydra(xp.cfg)
xp.sig

# %% [markdown]
# ## Data and events
#
# A study gives recordings. Each has a raw signal (MNE) and a table of events: sounds, words,
# phonemes.

# %%
recordings = build_recordings(config)
for recording in recordings:
    print(recording)
raw = recordings[0].load_raw()
raw

# %%
events = recordings[0].load_events()
events.groupby("kind").size()

# %%
plot_events(events, stop=events["start"].min() + 5)

# %% [markdown]
# ## Features
#
# What the brain signal is matched with; here a mel spectrogram, in the paper wav2vec 2.0.

# %%
[(feature.name, feature.dimension) for feature in build_features(config)]

# %% [markdown]
# ## Segments and training
#
# The solver holds the segments of three splits, the encoder and its state. No sentence of the test
# split is heard in training.

# %%
solver = build_solver(config, Path(xp.folder))
{name: len(segments) for name, segments in solver.splits.datasets.items()}

# %%
solver.splits.datasets["test"].table[["recording", "time", "word", "word_index"]].head()

# %%
Path(xp.folder).mkdir(parents=True, exist_ok=True)
history = solver.run()
[round(epoch["valid"]["loss"], 2) for epoch in history]

# %% [markdown]
# ## Retrieval
#
# For each test segment: among all test segments, is the one that was heard among the ten best?
# Tables and a report lie in the experiment's folder.

# %%
evaluation = evaluate_solver(solver)
print("\n".join(evaluation.lines()))
evaluation.report

# %%
retrieval = evaluation.retrieval
{
    solver.splits.subjects[subject]: accuracy
    for subject, accuracy in retrieval.by_subject(10).items()
}

# %% [markdown]
# ## Back to the head
#
# Where the decoder looks, seen from above, nose up.

# %%
draw_attention(solver)[0]

# %% [markdown]
# ## Words over time
#
# How probable the decoder finds each word of a sentence while it goes by.

# %%
draw_sentence(solver)

# %% [markdown]
# From here: `python -m scripts.controls` and `python -m scripts.baselines` for this experiment,
# [docs/evaluation.md](../docs/evaluation.md) for what the numbers mean, `python -m
# scripts.run_grid` for many.
