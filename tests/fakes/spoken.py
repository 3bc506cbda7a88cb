"""Traces of a small text with words, some of them hostile, whose routing is known by hand.

Three desks of two windows of 32 tokens. Learned runs choose by the id and the seed renames their
experts, so that two of them agree on every token once they are matched; hashed runs choose by
something else.
"""

import dataclasses

import numpy as np

from moe.analysis.trace import Trace
from tests.fakes import traces

HOSTILE = (
    "</script><script>window.bad=1</script>",
    "<!--",
    "<img src=x onerror=window.bad=1>",
    "\u2028",
    "\"'`${1}&amp;",
    "\u202eabc\u200f",
    "\x00\x1b[31m",
    "\ufffd",
)
WORDS = tuple(f" w{i}" for i in range(22))
VOCABULARY = (*HOSTILE, *WORDS, "\n", "")  # 32 ids
LENGTH, DESKS = 32, ("drama", "</select>", "code")
LAYERS = (1, 3)  # their depths
HAS = 6 * LENGTH
RENAMED = {0: np.array([0, 1, 2, 3]), 1: np.array([2, 3, 1, 0])}


def ids():
    """Windows shift through the vocabulary, so that every desk has every id twice."""
    t = np.arange(HAS)
    return (t + 5 * (t // LENGTH)) % len(VOCABULARY)


def said(arm, seed):
    """What a trace of that arm and seed was made of."""
    label = f"words/{arm} seed {seed}"
    named = {"label": label, "study": "words", "arm": arm, "seed": seed}
    texts = {"vocabulary": VOCABULARY, "desks": DESKS, "num_layers": 4}
    return traces.about(**named, **texts)


def _trace(arm, seed, layers):
    id_T = ids()
    target_T = np.append(id_T[1:], -1)
    loss_T = np.where(target_T < 0, np.nan, 1 + id_T / 8 + seed)
    made = traces.trace(
        *layers,
        length=LENGTH,
        about=said(arm, seed),
        id_T=id_T,
        target_T=target_T,
        desk_T=np.arange(HAS) // (2 * LENGTH),
        loss_T=loss_T.astype(np.float32),
    )
    deep = [
        dataclasses.replace(layer, layer=depth)
        for layer, depth in zip(made.layers, LAYERS, strict=False)
    ]
    return dataclasses.replace(made, layers=tuple(deep))


def learned(seed=0) -> Trace:
    """Two of four experts: id % 4 with gate 0.75, the next one with 0.25, dropped for id 9."""
    id_T, name_E = ids(), RENAMED[seed]
    gate_TK = np.tile(np.float32([0.75, 0.25]), (HAS, 1))
    kept_TK = np.ones((HAS, 2), bool)
    kept_TK[id_T == 9] = False
    layers = []
    for shift in (0, 1):  # in the upper layer the next expert is preferred
        first_T = (id_T + shift) % 4
        expert_TK = np.stack([name_E[first_T], name_E[(first_T + 1) % 4]], axis=1)
        layers.append(traces.layer(expert_TK, E=4, gate_TK=gate_TK, kept_TK=kept_TK))
    return _trace("learned", seed, layers)


def hashed(seed=0) -> Trace:
    """One of four experts: the quarter of the vocabulary in which the id is; no margin."""
    expert_TK = RENAMED[seed][ids() // 8][:, None]
    none_T = np.full(HAS, np.nan, np.float32)
    layers = [traces.layer(expert_TK, E=4, router="Hash", margin_T=none_T) for _ in LAYERS]
    return _trace("hashed", seed, layers)


def dense() -> Trace:
    """A run without experts."""
    one = learned()
    about = dataclasses.replace(one.about, label="words/dense seed 0", arm="dense")
    return dataclasses.replace(one, about=about, layers=())
