"""What training holds on a device of the mesh in use, or on one device without a mesh.

Parameters and optimizer slots are those that a checkpoint holds, split by their names as on the
mesh. Activations are an estimate: what the backward pass keeps of one microbatch by `model.remat`,
without fusion.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from moe.cost.account import served
from moe.devices import sharding
from moe.devices.sharding import EXPERT, FSDP, TABLE
from moe.experiment import Experiment
from moe.model.layer import MoE
from moe.model.transformer import Transformer
from moe.params import split_state

SLOTS = 2  # of the optimizer, for each learned parameter


def in_training(experiment: Experiment) -> dict[str, int]:
    """Bytes by part. "gathered" is what is collected over the fsdp axis, where there is one."""
    model = experiment.model
    tree = parameters(model)
    learned = _bytes(split_state(tree)[0])
    found = {
        "parameters": _bytes(tree),
        "gradients": learned,
        "optimizer": SLOTS * learned,
        "activations": _activations(experiment),
    }
    if sharding.sizes().get(FSDP, 1) > 1:
        found["gathered"] = _gathered(model, tree)
    return found


def parameters(model: Transformer) -> Any:
    """Shapes of all parameters, named as the model names them; nothing is traced but their making.

    The layers of one place of the period are stacked, as in the model's own.
    """
    D, V, N, moes = model.model_width, model.vocab_size, model.num_layers, model.moes

    def block(key, moe):
        feed_forward = {"ffn": {"experts": model.ffn.init(key, 1, D)}}
        vectors = model.token_vectors
        return {
            **({} if vectors is None else {"token_vectors": vectors.init(key, V, D)}),
            "attention": model.attention.init(key, D, N),
            "attention_norm": {"scale": jnp.ones(D)},
            "ffn_norm": {"scale": jnp.ones(D)},
            **(feed_forward if moe is None else {"moe": moe.init(key, D, V)}),
        }

    def stacked(leaf):
        return jax.ShapeDtypeStruct((N // len(moes), *leaf.shape), leaf.dtype)

    key = jax.random.key(0)
    blocks = [jax.eval_shape(lambda key, moe=moe: block(key, moe), key) for moe in moes]
    layers = {f"block{p}": jax.tree.map(stacked, each) for p, each in enumerate(blocks)}
    ends = {"embedding_VD": (V, D), **({} if model.tied_head else {"head_DV": (D, V)})}
    return {
        **{name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in ends.items()},
        "final_norm": {"scale": jax.ShapeDtypeStruct((D,), jnp.float32)},
        "layers": layers,
    }


def _bytes(tree: Any, without: tuple[str, ...] = ()) -> int:
    """On a device of the mesh in use, those axes left out."""
    leaves, there = jax.tree.leaves(tree), sharding.sizes()
    specs = jax.tree.leaves(
        sharding.specs(tree, without), is_leaf=lambda leaf: isinstance(leaf, jax.P)
    )

    def parts(spec):
        axes = [axis for part in spec for axis in (part if isinstance(part, tuple) else (part,))]
        return math.prod(there[axis] for axis in axes if axis)

    sizes = [leaf.size * leaf.dtype.itemsize for leaf in leaves]
    return sum(size // parts(spec) for size, spec in zip(sizes, specs, strict=True))


def _gathered(model: Transformer, tree: Any) -> int:
    """The collected parameters in the dtype of activations, and the embedding in its own.

    Of all layers where their backward pass computes nothing again, else of one period.
    """
    layers = _bytes(split_state(tree["layers"])[0], without=(FSDP,)) * _itemsize(model) // 4
    ends = {name: leaf for name, leaf in tree.items() if name != "layers"}
    periods = model.num_layers // len(model.moes)
    return layers // (1 if model.remat == "none" else periods) + _bytes(ends, without=(FSDP,))


def _itemsize(model: Transformer) -> int:
    return 2 if model.dtype == "bfloat16" else 4


def _on_device(letter: str, count: int) -> float:
    """How many of a letter a device has."""
    over = math.prod(sharding.sizes().get(axis, 1) for axis in TABLE[letter])
    return count if count % over else count / over


def _activations(experiment: Experiment) -> int:
    """What the backward pass keeps.

    With remat=none everything; else what enters each period, with "dots" its plain products too,
    and everything of the one period that is computed again.
    """
    model, length = experiment.model, experiment.data.sequence_length
    moes, size = model.moes, _itemsize(model)
    tokens = experiment.tokens_per_call // sharding.batch_parts()
    chosen = iter(served(model, experiment.tokens_per_call) if model.moe is not None else ())
    whole = len(moes) * _attention(model, length)
    products = len(moes) * _attention_products(model)
    for moe in moes:
        each = _feed_forward(model, moe, next(chosen) if moe else 0, tokens)
        whole, products = whole + each[0], products + each[1]
    periods = model.num_layers // len(moes)
    if model.remat == "none":
        kept = periods * whole
    else:
        kept = whole + periods * (model.model_width + products * (model.remat == "dots"))
    return round(tokens * (size * kept + 2 * 4 * _on_device("V", model.vocab_size)))


def _attention(model: Transformer, length: int) -> float:
    """Numbers that attention makes for a token: norms, projections, both sides of the softmax."""
    a, queries = model.attention, _on_device("H", model.attention.num_heads)
    heads = 2 * (queries + _on_device("J", a.num_kv_heads)) * a.head_width
    return 3 * model.model_width + 2 * heads + 2 * queries * length


def _attention_products(model: Transformer) -> float:
    """Those that are plain products: queries, keys, values and what goes into the residual path."""
    a, queries = model.attention, _on_device("H", model.attention.num_heads)
    return (queries + 2 * _on_device("J", a.num_kv_heads)) * a.head_width + model.model_width


def _feed_forward(
    model: Transformer, moe: MoE | None, K: float, tokens: int
) -> tuple[float, float]:
    """Numbers that a feed-forward layer makes for a token, and those of plain products.

    Args:
      K: experts that serve a token.
      tokens: of one device.
    """
    D = model.model_width

    def network(experts):
        width = _on_device("F", experts.width)
        return 2 * D + (experts.matrices + 1) * width, (experts.matrices - 1) * width + D

    if moe is None:
        return network(model.ffn)
    rows = moe.dispatch.rows(tokens, K, sharding.sizes().get(EXPERT, 1)) / tokens
    whole, products = 2 * D + rows * network(moe.experts)[0], moe.routed_experts
    shared = network(moe.shared.ffn) if moe.shared is not None else (0, 0)
    return whole + shared[0], products + shared[1]
