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
# # Tables 3 and 4: ablation
#
# What each part of the encoder and of the scaling is worth: top-10 segment accuracy of each
# variant, and its difference to the reference with a p value. The paper's figures are saved outputs
# of the published notebooks (three seeds).
#
#     python -m scripts.run_grid nmi.ablation_final gpus=0,1 ddp=2
#     python -m scripts.run_eval_probs grid_name=nmi.ablation_final

# %% tags=["parameters"]
root = ".."  # of the repository, where the grid was run
grid = "nmi.ablation_final"
reference = "reference"  # the row that others are compared with
out = "outputs/tables"

# %%
# %matplotlib inline
import os

os.chdir(root)

from scripts.grid_figures import draw_ablation
from scripts.grid_results import collect
from scripts.grid_tables import (
    differences,
    export,
    paper_accuracies,
    paper_differences,
    summarise,
    wide,
    with_paper,
)

# %% [markdown]
# ## Accuracies

# %%
results = collect(grid)
print(results)
table = with_paper(summarise(results), paper_accuracies("ablation"))
shown = wide(table)
export(table, shown, out, "table3_ablation")
shown

# %% [markdown]
# ## Differences, in points
#
# Two-sided Wilcoxon signed-rank test over subjects (each subject's accuracy is the mean over
# seeds), corrected by Holm's procedure for the rows of a study. Subject accuracies come from
# `scripts.run_eval_probs`; without it there is a difference but no p. No p can be smaller than
# `p_floor`, which follows from the number of subjects. The paper's column is the difference of its
# accuracies.

# %%
change = with_paper(differences(results, reference), paper_differences())
shown = wide(change, value="difference")
export(change, shown, out, "table4_differences")
shown

# %%
change[["row", "study", "n_subjects", "p", "p_holm", "p_floor"]].dropna()

# %%
draw_ablation(change) if change["difference"].notna().any() else "Nothing to draw yet."
