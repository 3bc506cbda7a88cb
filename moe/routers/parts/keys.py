"""What a hash layer hashes: the token, its neighbours or its place (arXiv 2106.04426, table 3).

A key is computed from whole sequences as the model sees them; a window that joins documents is
one sequence.
"""

import dataclasses
from typing import Annotated, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from moe.data.counts import Corpus
from moe.fields import AtLeast, Within
from moe.params import mixed


class Key(Protocol):
    """Maps ids to the rows of a table."""

    kind: ClassVar[str] = "key"
    causal: ClassVar[bool] = True

    def rows(self, V: int) -> int:
        """Rows that the table needs for a vocabulary of V ids."""
        ...

    def __call__(self, id_BL: jax.Array) -> jax.Array:
        """Returns key_BL in [0, rows)."""
        ...

    def count(self, corpus: Corpus) -> np.ndarray:
        """How often each row is used in the training text, taken as one sequence."""
        key_S = np.asarray(self(jnp.asarray(corpus.token_S, jnp.int32)[None])[0])
        return np.bincount(key_S, minlength=self.rows(len(corpus.count_V)))


@dataclasses.dataclass(frozen=True)
class Token(Key):
    """The token's own id."""

    def rows(self, V):
        """V."""
        return V

    def __call__(self, id_BL):
        """The ids."""
        return id_BL

    def count(self, corpus):
        """The corpus' own counts."""
        return corpus.count_V


@dataclasses.dataclass(frozen=True)
class Previous(Key):
    """The id of the token before; the first token of a sequence has a row of its own."""

    def rows(self, V):
        """One more than ids."""
        return V + 1

    def __call__(self, id_BL):
        """Shifts ids to the right by one; row 0 is "none"."""
        return shifted(id_BL + 1, 1)


@dataclasses.dataclass(frozen=True)
class NGram(Key):
    """The last n ids, hashed into a number of buckets; n = 2 is the paper's bigram hash.

    Attributes:
      n: ids in the context, the token's own included.
      buckets: rows of the table.
      salt: another salt gives another hash.
    """

    n: Annotated[int, AtLeast(1)] = 2
    buckets: Annotated[int, Within(1, 2**31, "[)")] = 65_536
    salt: Annotated[int, Within(0, 2**32, "[)")] = 0

    def rows(self, V):
        """The buckets."""
        del V
        return self.buckets

    def __call__(self, id_BL):
        """Multiplies and mixes (32-bit, wrapping); missing ids count as "none"."""
        hashed_BL = jnp.full(id_BL.shape, np.uint32(self.salt ^ 0x9E3779B9), jnp.uint32)
        for back in reversed(range(self.n)):
            hashed_BL = mixed(hashed_BL ^ shifted(id_BL + 1, back).astype(jnp.uint32))
        return (hashed_BL % np.uint32(self.buckets)).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class Position(Key):
    """The token's place in its sequence.

    Attributes:
      longest: rows of the table; later places start again.
    """

    longest: Annotated[int, AtLeast(1)] = 65_536

    def rows(self, V):
        """The longest sequence."""
        del V
        return self.longest

    def __call__(self, id_BL):
        """0, 1, 2, ... in every sequence."""
        place_L = jnp.arange(id_BL.shape[-1], dtype=jnp.int32) % self.longest
        return jnp.broadcast_to(place_L, id_BL.shape)

    def count(self, corpus):
        """The same for every place, since windows are all equally long."""
        del corpus
        return np.ones(self.longest, np.int64)


@dataclasses.dataclass(frozen=True)
class Next(Key):
    """The id of the token after: a cheat that shows how much a perfect router could give.

    The last token of a sequence, whose successor is not there, has a row of its own.
    """

    causal: ClassVar[bool] = False

    def rows(self, V):
        """One more than ids."""
        return V + 1

    def __call__(self, id_BL):
        """Shifts ids to the left by one; row 0 is "none"."""
        return jnp.flip(shifted(jnp.flip(id_BL + 1, axis=-1), 1), axis=-1)


def shifted(value_BL: jax.Array, by: int) -> jax.Array:
    """value[..., l - by], and 0 where there is none."""
    L = value_BL.shape[-1]
    return jnp.pad(value_BL, ((0, 0), (by, 0)))[:, :L]
