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
# # Table 2: main results
#
# Top-10 segment accuracy in percent, mean ± standard deviation over seeds, beside the paper's
# figures (Table 2 of [Défossez et al. 2023](https://doi.org/10.1038/s42256-023-00714-5)). "–": not
# known yet; "(1 of 3)": seeds are missing. Any grid can be shown, complete or not. Run it first,
# then evaluate it:
#
#     python -m scripts.run_grid nmi.main_table gpus=0,1 ddp=2
#     python -m scripts.run_eval_probs grid_name=nmi.main_table

# %% tags=["parameters"]
root = ".."  # of the repository, where the grid was run
grid = "nmi.main_table"
out = "outputs/tables"

# %%
# %matplotlib inline
import os

os.chdir(root)

from scripts.grid_figures import draw_accuracies
from scripts.grid_results import collect
from scripts.grid_tables import export, paper_accuracies, summarise, wide, with_paper

# %%
results = collect(grid)
print(results)
table = with_paper(summarise(results), paper_accuracies("main"))
shown = wide(table)
shown

# %%
export(table, shown, out, "table2_main_results")

# %% [markdown]
# The same as a figure: bars are ours, diamonds the paper's, dashes chance.

# %%
draw_accuracies(table)

# %% [markdown]
# Chance and the number of candidates, without which no accuracy means anything, and top-1 accuracy.

# %%
table[["row", "study", "chance", "n_candidates"]].dropna().round(2)

# %%
top1 = with_paper(summarise(results, k=1), paper_accuracies("main", "top1"))
shown = wide(top1)
export(top1, shown, out, "table2_top1")
shown
