"""Hand-made routing traces: everything that a test does not name has a plain value."""

import dataclasses

import numpy as np

from moe.analysis.trace import About, LayerTrace, Trace

VOCABULARY = ("a", "b", "c", " d", " e", "f", ".", "")


def about(**changes):
    """Of a trace whose vocabulary has 8 ids, of 2 desks and 3 classes."""
    names = {"label": "made", "study": "", "arm": "made", "experiment": "", "parameters": "0" * 64}
    numbers = {"seed": 0, "step": 0, "num_layers": 1}
    texts = {"vocabulary": VOCABULARY, "desks": ("x", "y"), "classes": ("p", "q", "r")}
    return About(**{**names, **numbers, **texts, **changes})


def layer(expert_TK, E=4, **changes):
    """A layer that chose these experts, with even gates; E marks a choice that was not made.

    All that was chosen is kept, margins are 1, two inputs of width 2 are known, the matrix is not.
    """
    expert_TK = np.asarray(expert_TK, np.int16)
    T = len(expert_TK)
    made_TK = expert_TK < E
    gate_TK = made_TK / np.maximum(made_TK.sum(axis=1, keepdims=True), 1)
    values = {
        "gate_TK": gate_TK.astype(np.float32),
        "kept_TK": made_TK,
        "margin_T": np.ones(T, np.float32),
        "sample_S": np.arange(min(2, T), dtype=np.int32),
        "input_SD": np.arange(2.0 * min(2, T), dtype=np.float32).reshape(-1, 2),
    }
    return LayerTrace(
        **{"layer": 0, "num_experts": E, "router": "TopK", "expert_TK": expert_TK}
        | values
        | changes
    )


def trace(*layers, length=4, **changes):
    """A trace of these layers, which number themselves: ids count up, desks are halves of it."""
    T = len(layers[0].expert_TK)
    layers = tuple(dataclasses.replace(one, layer=n) for n, one in enumerate(layers))
    t = np.arange(T)
    values = {
        "about": about(num_layers=len(layers)),
        "id_T": t % 8,
        "target_T": (t + 1) % 8,
        "position_T": t % length,
        "document_T": t // length,
        "desk_T": 2 * t // T,
        "class_T": t % 3,
        "loss_T": 1 + t / T,
    }
    kinds = {"desk_T": np.int16, "class_T": np.int16, "loss_T": np.float32}
    values = {**values, **changes}
    for name in [name for name in values if name != "about"]:
        values[name] = np.asarray(values[name], kinds.get(name, np.int32))
    return Trace(**values, layers=layers)


def random(seed=0, windows=6, length=8, k=2, layers=2):
    """A trace of a router that draws k of 4 experts for each token; so are inputs and matrix."""
    generator, T, D, E = np.random.default_rng(seed), windows * length, 3, 4

    def one():
        expert_TK = np.argsort(generator.random((T, E)), axis=1)[:, :k]
        sample_S = np.sort(generator.permutation(T)[: T // 2]).astype(np.int32)
        normal = generator.standard_normal
        return layer(
            expert_TK,
            margin_T=generator.random(T).astype(np.float32),
            sample_S=sample_S,
            input_SD=normal((len(sample_S), D)).astype(np.float32),
            matrix_DE=normal((D, E)).astype(np.float32),
        )

    ids = generator.integers(8, size=(T, 2))
    texts = {"id_T": ids[:, 0], "target_T": ids[:, 1]}
    return trace(*(one() for _ in range(layers)), length=length, **texts)
