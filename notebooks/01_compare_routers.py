# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Dense, top-k and hash routing at equal active FLOPs
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/01_compare_routers.ipynb)
#
# A mixture-of-experts layer replaces one feed-forward network by several, of which each token
# uses only a few. Two questions come before all others:
#
# 1. At the same arithmetic per token, does the sparse model learn more than the dense one?
# 2. Must the routing be *learned*, or does a fixed random table from token to expert do as well?
#
# This notebook runs the smallest study of the repository at reduced length, draws the losses while
# they fall, and shows what each expert was given. On Colab it takes a few minutes on any runtime.

# %%
# In Colab: fetch the code and install what is missing. JAX is not pinned, so that the runtime
# keeps the build that fits its accelerator. Elsewhere: run from a clone, nothing happens here.
import sys

if "google.colab" in sys.modules:
    import subprocess

    subprocess.run(["git", "clone", "-q", "https://github.com/OWNER/REPO", "moe_repo"], check=True)
    sys.path.insert(0, "moe_repo")
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "-r",
                    "moe_repo/requirements.txt"], check=True)  # fmt: skip
elif "../" not in sys.path:
    sys.path.insert(0, "../")

# %% tags=["parameters"]
STEPS = 200
ARMS = ["dense", "top1", "hash_random", "hash_balanced"]
SEEDS = [0]
WORKDIR = "runs/notebook"

# %% [markdown]
# ## What is compared
#
# An experiment is a tree of frozen dataclasses. The arms below differ only in their feed-forward
# layers; the width of the experts is solved so that all cost the same FLOPs per token, the router
# counted.

# %%
from experiments.select import resolve
from moe.cost.account import account

experiments = resolve("dense_topk_hash", ARMS, "tiny", [f"train.steps={STEPS}"])
for arm, experiment in experiments.items():
    costs = account(experiment)
    print(
        f"{arm:14} {costs.params_total:>10,} parameters, {costs.params_active:>8,} active,"
        f" {costs.flops_per_token:>8,.0f} FLOPs per token"
    )

# %% [markdown]
# ## The text
#
# Five desks, as in a newsroom: drama, scripture, geography, code, and translations into many
# languages. Every token carries the label of its desk, so that we can ask later who read what. The
# first call downloads and prepares the corpus (about a minute).

# %%
from moe.data.loader import load

first = experiments[ARMS[0]]
dataset = load(first.data, first.model.vocab_size)
for desk in dataset.desks:
    window = dataset.held_out(desk).id_BL[0]
    print(f"--- {desk}\n{dataset.decode(window)[:220]}\n")

# %% [markdown]
# ## Training
#
# Lines are the training loss, points the loss on held-out documents. Interrupt and run the cell
# again: finished runs are kept, the others resume from their last checkpoint.

# %%
from experiments.figures.live import LiveCurves
from experiments.runner.request import Request
from experiments.runner.run import run

asked = Request("dense_topk_hash", WORKDIR, ARMS, seeds=SEEDS, overrides=[f"train.steps={STEPS}"])
run(asked, on_log=LiveCurves("dense_topk_hash"))

# %% [markdown]
# ## What came out
#
# *Unigram entropy* is what a model reaches that knows only how frequent each token is; the
# *5-gram model* has counted the whole training text, many times what these runs have seen. One seed
# is one draw: the table says so, and claims nothing. Set `SEEDS = [0, 1, 2]` for differences with
# intervals.

# %%
from IPython.display import Image, display

from experiments.report import report

page = report.report(WORKDIR)
print(report.table(WORKDIR))

# %% [markdown]
# ### Is every expert used evenly?
#
# Each row is one layer of one arm, each cell an expert; 1/E is the neutral colour. The balanced
# hash table is even by construction, the random one is not, and the learned router is kept near
# balance only by its loss. Even *on average* does not mean even *for each text*, which the second
# picture shows: rows are desks.

# %%
for name in ("expert_load", "desks_by_expert"):
    display(Image(str(page.parent / "figures" / f"{name}.png")))

# %% [markdown]
# ## Where to go from here
#
# - `page` above is a self-contained report: all figures, per-arm detail and the caveats.
# - The full tiny study, six arms at three seeds, is one command: `make quickstart`.
# - To add a router of your own, write one file in `moe/routers/` and one line in its `__init__.py`;
#   the README walks through it.
