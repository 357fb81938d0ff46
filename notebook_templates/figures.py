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
# # Figures of one experiment
#
# Where the decoder looks, when it knows, and which words: of the best experiment of a grid, or of
# one by its signature. Controls and lags of it: `python -m scripts.controls sig=SIG`.

# %% tags=["parameters"]
root = ".."  # of the repository, where the grid was run
grid = "nmi.main_table"
sig = ""  # of an experiment; empty: the best of the grid
n_segments = 1000  # asked for at each lag
reach = 2.0  # largest lag, in seconds
step = 0.25  # from lag to lag
encoding_sig = ""  # of an experiment with task.type=encode, if there is one

# %%
# %matplotlib inline
import os

os.chdir(root)

from bm import play
from bm.viz import plot_lags
from scripts.controls import accuracy_by_lag
from scripts.grid_figures import (
    best_solver,
    draw_attention,
    draw_encoding,
    draw_knowledge,
    draw_sentence,
)
from scripts.grid_results import collect

# %%
results = collect(grid)
print(results)
solver = None
if sig:
    solver = play.get_solver_from_sig(sig)
elif len(results.accuracies):
    solver = best_solver(results)
solver.folder if solver else "No experiment of this grid has been tested: nothing to draw."

# %% [markdown]
# ## Attention to sensors
#
# Seen from above, nose up; 1 is what a sensor would get if all were attended alike. In the paper
# attention is strongest over the temporal and frontal sensors.

# %%
draw_attention(solver)[0] if solver else None

# %% [markdown]
# ## Accuracy against lag
#
# The decoder is given brain signals from earlier or later. It must peak at 0, the lag it was
# trained for, and fall to chance.

# %%
plot_lags(accuracy_by_lag(solver, n_segments, reach, step)) if solver else None

# %% [markdown]
# ## Words over time
#
# The probability of each word of a test sentence while it goes by: a window that begins at each
# moment, and the sum over all candidates anchored at the word.

# %%
draw_sentence(solver) if solver else None

# %% [markdown]
# ## What the decoder knows
#
# How well features of the words predict the probability that the decoder gives to the truth, for
# each subject: what `python -m scripts.knowledge sig=SIG` found.

# %%
figure = draw_knowledge(solver) if solver else None
figure or "Not analysed yet: python -m scripts.knowledge sig=SIG"

# %% [markdown]
# ## Sensors that an encoder predicts
#
# The other way round (`task.type=encode`): the correlation of each sensor's predicted and true
# signal on the test split.

# %%
encoder = play.get_solver_from_sig(encoding_sig) if encoding_sig else None
draw_encoding(encoder) if encoder else "No experiment was named: set encoding_sig."
