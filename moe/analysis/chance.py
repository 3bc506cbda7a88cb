"""Nulls: text and routing with one thing taken away, by shuffling what could have been elsewhere.

A label is shuffled in the unit to which it belongs. A desk belongs to a document and a word class
to an id; shuffled token by token, they would seem to tell of the expert whenever documents or ids
do, whichever way the labels were dealt.
"""

import numpy as np

from moe.analysis.trace import LayerTrace, Trace

DRAWS = 20  # of a null
MOST = 2**17  # tokens that a null reads where each draw costs K * K passes over them

Generator = np.random.Generator


def within(group_T: np.ndarray, generator: Generator) -> np.ndarray:
    """A permutation of the tokens in which each takes the place of one of its group."""
    shuffled_T = generator.permutation(len(group_T))
    order_T = np.argsort(group_T, kind="stable")
    mixed_T = shuffled_T[np.argsort(group_T[shuffled_T], kind="stable")]
    found_T = np.empty_like(order_T)
    found_T[order_T] = mixed_T
    return found_T


def by_unit(label_T: np.ndarray, unit_T: np.ndarray, generator: Generator) -> np.ndarray:
    """Labels dealt anew to the units, each unit keeping one; token by token if a unit has two."""
    _, first_U, inverse_T = np.unique(unit_T, return_index=True, return_inverse=True)
    label_U = label_T[first_U]
    if not np.array_equal(label_U[inverse_T], label_T):
        return generator.permutation(label_T)
    return generator.permutation(label_U)[inverse_T]


def turned(trace: Trace, generator: Generator) -> np.ndarray:
    """position_T with each window turned by its own number of places, its order kept."""
    length = trace.length
    turn_W1 = generator.integers(length, size=(trace.tokens // length, 1))
    return ((trace.position_T.reshape(-1, length) + turn_W1) % length).ravel()


def some(tokens: int, most: int = MOST) -> np.ndarray:
    """At most so many of the tokens, spread evenly."""
    return np.linspace(0, tokens - 1, min(tokens, most)).astype(np.int64)


def pairs(trace: Trace) -> np.ndarray:
    """Tokens whose predecessor stands in the same window and document."""
    same_T = (np.diff(trace.position_T) == 1) & (np.diff(trace.document_T) == 0)
    return np.flatnonzero(same_T) + 1


def traded(member_TE: np.ndarray, generator: Generator) -> np.ndarray:
    """Sets traded between pairs of tokens: the size of each set and the load of each expert stay.

    The curveball algorithm (Strona et al., Nature Communications 5:4114, 2014): of what only one of
    two tokens has, each gets at random as much as it had.
    """
    order_T = generator.permutation(len(member_TE))
    half = len(order_T) // 2
    one, two = order_T[:half], order_T[half : 2 * half]
    first, second = member_TE[one], member_TE[two]
    own = first & ~second
    free = first ^ second
    key = np.where(free, generator.random(free.shape, np.float32), np.inf)
    rank = np.empty(key.shape, np.int32)
    places = np.broadcast_to(np.arange(key.shape[1], dtype=np.int32), key.shape)
    np.put_along_axis(rank, np.argsort(key, axis=1), places, axis=1)
    given = free & (rank < own.sum(axis=1, keepdims=True))
    found_TE = member_TE.copy()
    found_TE[one] = (first & second) | given
    found_TE[two] = (first & second) | (free & ~given)
    return found_TE


def members(expert_TK: np.ndarray, E: int) -> np.ndarray:
    """Whether each token chose each expert, bool [T, E]."""
    found_TE = np.zeros((len(expert_TK), E + 1), bool)
    np.put_along_axis(found_TE, expert_TK.astype(np.int64), True, axis=1)
    return found_TE[:, :E]


def first_choice(layer: LayerTrace) -> np.ndarray:
    """Each token's best expert as int64; E where it made no choice."""
    return layer.expert_TK[:, 0].astype(np.int64)


def table(row_T: np.ndarray, column_T: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """How often each pair of numbers stands in two columns."""
    found = np.bincount(row_T * np.int64(shape[1]) + column_T, minlength=shape[0] * shape[1])
    return found.reshape(shape)
