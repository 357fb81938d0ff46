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
# # Table 1: datasets
#
# Sensors, people, hours, segments and words of each study of a grid, beside the paper's figures
# (saved outputs of the published notebooks). Segments are *different* ones: a window at a word is
# counted once, however many people heard it. How the paper counted segments and words isn't known
# in detail; sensors, people and hours must agree.
#
# Signals and events come from the cache, or are prepared into it first (which takes its time).
# Studies whose data aren't here are named in the log.

# %% tags=["parameters"]
root = ".."  # of the repository
grid = "nmi.main_table"
out = "outputs/tables"

# %%
import os

os.chdir(root)

from scripts.dataset_table import describe_datasets
from scripts.grid_tables import export, wide

# %%
table = describe_datasets(grid)
shown = wide(table, ["measure"], value="count")
shown

# %%
export(table, shown, out, "table1_datasets")
