"""What the name of a parameter says: its shape, whether it learns and decays, where it lies.

Parameters are nested dicts of arrays. The capitals that end a name are its shape; `w_` begins the
name of a matrix; what lies under a key "state" moves by rules, never by gradients: `state` reads
it and `with_state` writes it. Keys of randomness have names too: `named`.
"""

import hashlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp

Params = Any  # a nested dict of arrays
STATE = "state"
WHOLE = ("router", "null")  # parameters under these keys lie whole on every device: all read them


class Size(NamedTuple):
    """How many of a letter a part of an experiment has; a mesh that splits the letter divides it.

    Attributes:
      what: how a mistake names it, as "model.moe.num_experts=8".
    """

    what: str
    letter: str
    value: int


def names(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> list[str]:
    """The path of each leaf, as "params/layers/w_in_EDF", in the order of jax.tree.leaves."""
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_leaf)]
    return [_name(path) for path in paths]


def nested(named: dict[str, Any]) -> Any:
    """The nested dict whose leaves have these names."""
    return flax.traverse_util.unflatten_dict(named, sep="/")


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def letters(name: str) -> str:
    """The letters of the axes that are split over devices; "" where the leaf lies whole.

    Optimizer slots have the names of their parameters.
    """
    *above, last = name.split("/")
    found = re.search(r"_([A-Z][A-Z0-9]*)$", last)
    return "" if found is None or set(above) & set(WHOLE) else found[1]


def map_named(function: Callable[[str, Any], Any], tree: Any) -> Any:
    """function(name, leaf) of every leaf."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: function(_name(path), leaf), tree)


def decayed(params: Params) -> Any:
    """Which leaves weight decay shrinks: those named w_*; no norm, embedding, head_DV, phi_DEC."""
    return map_named(lambda name, _: name.split("/")[-1].startswith("w_"), params)


def split_state(params: Params) -> tuple[Params, Params]:
    """Splits parameters into what gradients move and what lies under a key "state"."""
    flat = flax.traverse_util.flatten_dict(params, keep_empty_nodes=True)
    learned = {path: leaf for path, leaf in flat.items() if STATE not in path}
    fixed = {path: leaf for path, leaf in flat.items() if STATE in path}
    return tuple(map(flax.traverse_util.unflatten_dict, (learned, fixed)))


def state(params: Params) -> Params:
    """What moves by rules, of the parameters of one part; {} where nothing does."""
    return params.get(STATE, {})


def with_state(params: Params, **moved: Any) -> Params:
    """The parameters of one part with these leaves of its state made or moved."""
    return {**params, STATE: {**state(params), **moved}}


def merge_state(learned: Params, fixed: Params) -> Params:
    """Undoes `split_state`."""
    flat = (flax.traverse_util.flatten_dict(p, keep_empty_nodes=True) for p in (learned, fixed))
    return flax.traverse_util.unflatten_dict({**next(flat), **next(flat)})


def named(key: jax.Array, use: str) -> jax.Array:
    """The key of one use of randomness below `key`; another use has another name and key.

    Of the 32-bit words that are folded in, the upper half belongs to names, the lower to numbers:
    indices of `jax.random.split`, steps. So no name meets a number, and a new use moves no other.
    """
    digest = hashlib.sha256(use.encode()).digest()
    return jax.random.fold_in(key, int.from_bytes(digest[:4], "big") | 2**31)


def mixed(word: jax.Array) -> jax.Array:
    """fmix32 of MurmurHash3 (Appleby 2011, public domain), of uint32: each bit moves all others."""
    word = (word ^ (word >> 16)) * jnp.uint32(0x85EBCA6B)
    word = (word ^ (word >> 13)) * jnp.uint32(0xC2B2AE35)
    return word ^ (word >> 16)
