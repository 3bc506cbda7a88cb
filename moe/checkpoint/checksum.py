"""A checksum of every leaf of a state, the same on any mesh and any number of processes.

The bits of each element are mixed with its place by the finaliser of MurmurHash3, which maps words
one to one, and summed modulo 2^32. So a change of one element is always seen, any other change
with a chance of 1 - 2^-32, and a sharded leaf needs no gathering: its shards' sums add up.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from moe.params import mixed, names

_WORDS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}


def checksums(tree: Any) -> tuple[dict[str, int], list[str]]:
    """Leaf name -> checksum, and the names of leaves with a value that is not finite."""
    sums, finite = _look(jax.tree.leaves(tree))
    known = names(tree)
    bad = [name for name, good in zip(known, np.asarray(finite), strict=True) if not good]
    return dict(zip(known, map(int, np.asarray(sums)), strict=True)), bad


@jax.jit
def _look(leaves: list[jax.Array]) -> tuple[jax.Array, jax.Array]:
    sums = jnp.stack([_checksum(leaf) for leaf in leaves])
    finite = [
        jnp.isfinite(leaf).all() if jnp.issubdtype(leaf.dtype, jnp.inexact) else jnp.array(True)
        for leaf in leaves
    ]
    return sums, jnp.stack(finite)


def _checksum(leaf: jax.Array) -> jax.Array:
    """uint32 scalar of one leaf."""
    word = leaf.astype(jnp.uint8) if leaf.dtype == jnp.bool_ else leaf
    word = lax.bitcast_convert_type(word, _WORDS[word.dtype.itemsize]).astype(jnp.uint32)
    place, stride = jnp.zeros(word.shape, jnp.uint32), 1
    for axis in reversed(range(word.ndim)):
        place += lax.broadcasted_iota(jnp.uint32, word.shape, axis) * np.uint32(stride % 2**32)
        stride *= word.shape[axis]
    return jnp.sum(mixed(word ^ mixed(place)), dtype=jnp.uint32)
