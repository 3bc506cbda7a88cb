"""The slot or row of each assignment, found by sorting one packed integer key."""

import dataclasses
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp

from moe.plan import Choices
from moe.registry import Mistake


class Priority(Protocol):
    """Which assignments get slots first, where there are too few; T tokens with K choices each."""

    kind: ClassVar[str] = "priority"

    def line_up(self, value_TK: jax.Array) -> jax.Array:
        """Values of the assignments in the order in which slots are given; axes behind TK stay."""
        ...

    def back(self, value_R: jax.Array, K: int) -> jax.Array:
        """Undoes `line_up`."""
        ...

    def causal(self, K: int) -> bool:
        """Whether no assignment of a later token comes before one of an earlier token."""
        ...


@dataclasses.dataclass(frozen=True)
class ChoiceMajor(Priority):
    """First choices of all tokens, then second ones: GShard (2006.16668), Switch (2101.03961).

    With k > 1 a later token's first choice takes the slot of an earlier token's second one.
    """

    def line_up(self, value_TK):
        """Transposes and flattens."""
        return value_TK.swapaxes(0, 1).reshape(-1, *value_TK.shape[2:])

    def back(self, value_R, K):
        """Splits and transposes."""
        return value_R.reshape(K, -1, *value_R.shape[1:]).swapaxes(0, 1)

    def causal(self, K):
        """With one choice."""
        return K == 1


@dataclasses.dataclass(frozen=True)
class TokenMajor(Priority):
    """All choices of a token before those of the next: causal within a sequence."""

    def line_up(self, value_TK):
        """Flattens."""
        return value_TK.reshape(-1, *value_TK.shape[2:])

    def back(self, value_R, K):
        """Splits."""
        return value_R.reshape(-1, K, *value_R.shape[1:])

    def causal(self, K):
        """Always."""
        del K
        return True


CHOICE_MAJOR = ChoiceMajor()


def slot_rows(plan: Choices, E: int, C: int, priority: Priority = CHOICE_MAJOR) -> jax.Array:
    """row_TK = expert * C + slot of every assignment, E * C for those that have none.

    Slots go by the priority: a rank within the expert, found by sorting one packed integer key
    (expert, place in the priority).
    """
    T, K = plan.expert_TK.shape
    R = T * K
    if (E + 1) * R >= 2**31:
        raise Mistake(f"(E + 1) * T * K = {E + 1} * {T} * {K}: must be below 2^31 for the key")
    expert_R = priority.line_up(plan.expert_TK)
    index_R = jnp.arange(R, dtype=jnp.int32)
    key_R = jnp.sort(expert_R * R + index_R)
    first_E = first_rows(key_R, E)
    slot_R = index_R - first_E[key_R // R]
    slot_R = jnp.zeros(R, jnp.int32).at[key_R % R].set(slot_R, unique_indices=True)
    served_R = (slot_R < C) & (expert_R < E)
    row_R = jnp.where(served_R, expert_R * C + slot_R, E * C)
    return priority.back(row_R, K)


def first_rows(key_R: jax.Array, E: int) -> jax.Array:
    """Where the rows of each expert begin among sorted keys expert * R + index; E + 1 numbers.

    The last is where unmade choices begin.
    """
    R = key_R.shape[0]
    return jnp.searchsorted(key_R, jnp.arange(E + 1, dtype=jnp.int32) * R).astype(jnp.int32)


def owners(row_TK: jax.Array, R: int) -> tuple[jax.Array, jax.Array]:
    """token_R and rank_R of each row: its inverse, token T for rows of nobody."""
    T, K = row_TK.shape
    token_TK = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32)[:, None], (T, K))
    rank_TK = jnp.broadcast_to(jnp.arange(K, dtype=jnp.int32)[None], (T, K))
    token_R = jnp.full(R, T, jnp.int32).at[row_TK].set(token_TK, mode="drop")
    return token_R, jnp.zeros(R, jnp.int32).at[row_TK].set(rank_TK, mode="drop")


@dataclasses.dataclass(frozen=True)
class Order:
    """Assignments sorted by expert, stable: row r is choice rank_R[r] of token token_R[r]."""

    token_R: jax.Array
    rank_R: jax.Array
    row_TK: jax.Array  # where each assignment went, the inverse permutation
    size_E: jax.Array  # rows of each expert


def sort_choices(plan: Choices, E: int) -> Order:
    """Sorts by expert, then token, then choice, through one packed integer key."""
    T, K = plan.expert_TK.shape
    R = T * K
    if (E + 1) * R >= 2**31:
        raise Mistake(f"(E + 1) * T * K = {E + 1} * {T} * {K}: must be below 2^31 for the key")
    index_R = jnp.arange(R, dtype=jnp.int32)
    key_R = jnp.sort(plan.expert_TK.reshape(R) * R + index_R)
    source_R = key_R % R
    row_R = jnp.zeros(R, jnp.int32).at[source_R].set(index_R, unique_indices=True)
    size_E = jnp.diff(first_rows(key_R, E))
    return Order(source_R // K, source_R % K, row_R.reshape(T, K), size_E)
