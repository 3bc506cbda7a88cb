"""Causal attention that skips the keys which the mask forbids, in blocks of queries, in plain XLA.

The probabilities are not kept but computed again from the logarithm of their sums, as in
FlashAttention (arXiv 2205.14135, algorithm 4). On CPUs this is faster than XLA's own form, which
computes the full square of positions and writes it several times.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp

BLOCK, BLOCKS = 32, 16  # queries in a block, at least; blocks in a sequence, at most


@jax.custom_vjp
def blocked(query_BLHA: jax.Array, key_BLJA: jax.Array, value_BLJA: jax.Array) -> jax.Array:
    """Mixes the values of positions 0..l into position l; H / J query heads read each key head.

    Scores are scaled by 1 / sqrt(A); the softmax is in float32. Returns mixed_BLHA.
    """
    return _forward(query_BLHA, key_BLJA, value_BLJA)[0]


class _Block(NamedTuple):
    """Queries [start, stop) of every sequence; they see the keys [0, stop)."""

    start: int
    stop: int

    def rows(self, array_BJMLA: jax.Array) -> jax.Array:
        """The block of an array with queries, its M heads of a key head one under the other."""
        B, J, M, _, A = array_BJMLA.shape
        return array_BJMLA[:, :, :, self.start : self.stop].reshape(B, J, -1, A)

    def masked(self, score_BJRL: jax.Array, of: float) -> jax.Array:
        """Scores of the block's rows, those of later keys replaced."""
        rows, keys = score_BJRL.shape[2:]
        query_R = self.start + jnp.arange(rows) % (self.stop - self.start)
        sees_RL = query_R[:, None] >= jnp.arange(keys)[None, :]
        return jnp.where(sees_RL, score_BJRL, of)


def _blocks(L: int) -> Iterator[_Block]:
    size = max(BLOCK, -(-L // BLOCKS))
    return (_Block(start, min(start + size, L)) for start in range(0, L, size))


def _by_head(array_BLHA: jax.Array, J: int) -> jax.Array:
    """BLHA as BJMLA, the M = H / J heads that read one key head together."""
    B, L, H, A = array_BLHA.shape
    return array_BLHA.reshape(B, L, J, H // J, A).transpose(0, 2, 3, 1, 4)


def _by_place(array_BJMLA: jax.Array) -> jax.Array:
    """Undoes `_by_head`."""
    B, J, M, L, A = array_BJMLA.shape
    return array_BJMLA.transpose(0, 3, 1, 2, 4).reshape(B, L, J * M, A)


_product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


def _forward(query_BLHA: jax.Array, key_BLJA: jax.Array, value_BLJA: jax.Array):
    J, A = key_BLJA.shape[2:]
    query = _by_head(query_BLHA, J)
    key, value = key_BLJA.transpose(0, 2, 1, 3), value_BLJA.transpose(0, 2, 1, 3)
    mixed, logsums = [], []
    for block in _blocks(query.shape[3]):
        score = _product("BJRA,BJLA->BJRL", block.rows(query), key[:, :, : block.stop]) * A**-0.5
        score = block.masked(score, -jnp.inf)
        highest = score.max(axis=-1, keepdims=True)
        weight = jnp.exp(score - highest)
        total = weight.sum(axis=-1, keepdims=True)
        seen = value[:, :, : block.stop]
        out = _product("BJRL,BJLA->BJRA", weight.astype(seen.dtype), seen) / total
        heads = (*query.shape[:3], block.stop - block.start)
        mixed.append(out.reshape(*heads, A))
        logsums.append((highest + jnp.log(total)).reshape(*heads, 1))
    mixed = jnp.concatenate(mixed, axis=3).astype(query.dtype)
    return _by_place(mixed), (query, key, value, mixed, jnp.concatenate(logsums, axis=3))


def _backward(kept, gradient_BLHA: jax.Array):
    query, key, value, mixed, logsum = kept
    A = query.shape[-1]
    upstream = _by_head(gradient_BLHA, key.shape[1])
    both = upstream.astype(jnp.float32) * mixed.astype(jnp.float32)
    shared = both.sum(axis=-1, keepdims=True)  # of each row: sum of weight times its derivative
    d_query, d_key, d_value = [], jnp.zeros(key.shape), jnp.zeros(value.shape)
    for block in _blocks(query.shape[3]):
        rows, above = block.rows(query), block.rows(upstream)
        seen = key[:, :, : block.stop]
        score = _product("BJRA,BJLA->BJRL", rows, seen) * A**-0.5
        weight = block.masked(jnp.exp(score - block.rows(logsum)), 0.0)
        d_weight = _product("BJRA,BJLA->BJRL", above, value[:, :, : block.stop])
        d_score = weight * (d_weight - block.rows(shared)) * A**-0.5
        weight, d_score = weight.astype(query.dtype), d_score.astype(query.dtype)
        of_keys = _product("BJRL,BJRA->BJLA", d_score, rows)
        of_values = _product("BJRL,BJRA->BJLA", weight, above)
        d_key = d_key.at[:, :, : block.stop].add(of_keys)
        d_value = d_value.at[:, :, : block.stop].add(of_values)
        heads = (*query.shape[:3], block.stop - block.start, A)
        d_query.append(_product("BJRL,BJLA->BJRA", d_score, seen).reshape(heads))
    d_query = _by_place(jnp.concatenate(d_query, axis=3).astype(query.dtype))
    return (
        d_query,
        d_key.transpose(0, 2, 1, 3).astype(key.dtype),
        d_value.transpose(0, 2, 1, 3).astype(value.dtype),
    )


blocked.defvjp(_forward, _backward)
