"""How hash layers deal keys to experts: the tables of arXiv 2106.04426, section 3."""

import dataclasses
from typing import Annotated, Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from moe.data.counts import Corpus
from moe.fields import AtLeast
from moe.registry import Mistake
from moe.routers.parts.clusters import cooccurrence, kmeans, squares, unit


class Table(Protocol):
    """Makes the table from a row (a key) to K distinct experts, at random or fitted to a text.

    By default every row draws K experts uniformly.
    """

    kind: ClassVar[str] = "table"
    of_tokens: ClassVar[bool] = False  # needs rows that are token ids
    needs_corpus: ClassVar[bool] = False  # `fit` makes another table than `init`

    def init(self, key: jax.Array, rows: int, E: int, K: int) -> jax.Array:
        """Makes expert_VK (int32), V the rows, valid before any `fit`."""
        draw_VE = jax.random.uniform(key, (rows, E))
        return jnp.argsort(draw_VE, axis=1)[:, :K].astype(jnp.int32)

    def fit(
        self, expert_VK: np.ndarray, E: int, count_V: np.ndarray, corpus: Corpus, seed: int
    ) -> np.ndarray:
        """Returns expert_VK, given that of `init` and how often rows are used; keeps it here.

        Runs on the host, once before step 0.
        """
        del E, count_V, corpus, seed
        return expert_VK

    def check(self, path: str) -> None:
        """Raises Mistake, one line that starts with `path`, for impossible fields."""
        del path


@dataclasses.dataclass(frozen=True)
class RandomTable(Table):
    """Every row draws K distinct experts uniformly: even over rows, uneven over tokens."""


@dataclasses.dataclass(frozen=True)
class BalancedTable(Table):
    """Rows from most to least frequent, each to the K experts with the least load so far.

    Cannot balance when one row alone is more than 1/E of all tokens (max violation is then at
    least E * p - 1). Equal counts and equal loads are broken at random by the seed. Rows that the
    text does not use are dealt in turn.
    """

    needs_corpus: ClassVar[bool] = True

    def fit(self, expert_VK, E, count_V, corpus, seed):
        """Returns the greedy assignment."""
        del corpus
        V, K = expert_VK.shape
        generator = np.random.default_rng(seed)
        order_V = np.lexsort((generator.random(V), -np.asarray(count_V)))
        return deal(order_V, count_V, K, np.zeros(E), generator)


@dataclasses.dataclass(frozen=True)
class ClusteredTable(Table):
    """Alike ids share an expert: k-means with E centroids, each id to its K nearest.

    The paper clusters a trained model's embeddings. Without `embedding`, ids are described here
    by the company they keep: positive pointwise mutual information with their neighbours, reduced
    by a singular value decomposition.

    Attributes:
      embedding: a .npy file of shape (V, any width), such as a trained model's embedding_VD; ""
        computes one from the training text.
      width: width of the embedding that is computed, at least.
    """

    embedding: str = ""
    width: Annotated[int, AtLeast(1)] = 32

    of_tokens: ClassVar[bool] = True
    needs_corpus: ClassVar[bool] = True

    def fit(self, expert_VK, E, count_V, corpus, seed):
        """Returns the K nearest centroids of every id.

        Ids that nothing is known of (zeros) are near to none: they are dealt in turn, beginning
        with the least loaded experts.
        """
        vector_VA, K = self.vectors(corpus), expert_VK.shape[1]
        distance_VE = self.distances(vector_VA, E, corpus, seed)
        table_VK = np.argsort(distance_VE, axis=1, kind="stable")[:, :K]
        known_V = np.any(vector_VA != 0, axis=1)
        used_VK = np.repeat(np.where(known_V, count_V, 0)[:, None], K, axis=1)
        load_E = np.bincount(table_VK.ravel(), weights=used_VK.ravel(), minlength=E)
        unused_V, generator = np.zeros(len(known_V)), np.random.default_rng(seed)
        dealt_VK = deal(np.flatnonzero(~known_V), unused_V, K, load_E, generator)
        return np.where(known_V[:, None], table_VK, dealt_VK)

    def distances(self, vector_VA: np.ndarray, E: int, corpus: Corpus, seed: int) -> np.ndarray:
        """Squared distance of every id to every k-means centroid, to DIGITS decimals.

        Clusters are those of the ids in the text, numbered by their lowest id. Ids that nothing is
        known of (zeros) are no part of them. With fewer clusters than E, the others are at inf.
        """
        known = (corpus.count_V > 0) & np.any(vector_VA != 0, axis=1)
        centroid_CA = kmeans(vector_VA[known], E, np.random.default_rng(seed))
        distance_VC = squares(vector_VA, centroid_CA)
        cluster, first = np.unique(distance_VC[known].argmin(axis=1), return_index=True)
        distance_VE = np.full((len(vector_VA), E), np.inf)
        distance_VE[:, : len(cluster)] = distance_VC[:, cluster[np.argsort(first)]]
        return distance_VE

    def vectors(self, corpus: Corpus) -> np.ndarray:
        """Unit vectors of all ids, of any width A; zeros where nothing is known of an id."""
        if not self.embedding:
            return cooccurrence(corpus, self.width)
        V = len(corpus.count_V)
        vector_VA = np.load(self.embedding, allow_pickle=False).astype(np.float64)
        if vector_VA.ndim != 2 or len(vector_VA) != V:
            raise Mistake(
                f"table.embedding={self.embedding}: has shape {vector_VA.shape}, must be "
                f"(vocab_size={V}, any)"
            )
        if not np.isfinite(vector_VA).all():
            raise Mistake(f"table.embedding={self.embedding}: must be finite")
        return unit(vector_VA)

    def check(self, path):
        """Raises Mistake for a file that is not there."""
        import pathlib

        if self.embedding and not pathlib.Path(self.embedding).is_file():
            raise Mistake(f"{path}.embedding={self.embedding}: no such file")


@dataclasses.dataclass(frozen=True)
class DispersedTable(ClusteredTable):
    """Alike ids are kept apart: each cluster is dealt evenly over all experts."""

    def fit(self, expert_VK, E, count_V, corpus, seed):
        """Deals cluster after cluster, its most frequent ids first, to the least loaded experts.

        Loads are those within the cluster; between clusters, the total load breaks ties.
        """
        distance_VE = self.distances(self.vectors(corpus), E, corpus, seed)
        cluster_V = np.argmin(distance_VE, axis=1)
        generator = np.random.default_rng(seed)
        table_VK, total_E = np.empty_like(expert_VK), np.zeros(E)
        for cluster in range(E):
            ids = np.flatnonzero(cluster_V == cluster)
            order = ids[np.lexsort((generator.random(len(ids)), -np.asarray(count_V)[ids]))]
            # Far less than one token: it only orders experts that are equal within the cluster.
            start_E = total_E / max(1.0, total_E.sum()) * 1e-3
            table_VK[order] = deal(order, count_V, expert_VK.shape[1], start_E, generator)[order]
            for k in range(expert_VK.shape[1]):
                np.add.at(total_E, table_VK[order, k], np.asarray(count_V)[order])
        return table_VK


def deal(
    order: np.ndarray, count_V: np.ndarray, K: int, load_E: np.ndarray, generator: Any
) -> np.ndarray:
    """Gives the rows in that order to the K least loaded experts; rows not in it get expert 0.

    Rows with count 0, which the order has last, load nobody: they go to the experts that have the
    fewest of them, and of these to the least loaded.
    """
    table_VK, load_E = np.zeros((len(count_V), K), np.int32), load_E.astype(float)
    unused_E = np.zeros(len(load_E))
    for row in order:
        table_VK[row] = np.lexsort((generator.random(len(load_E)), load_E, unused_E))[:K]
        load_E[table_VK[row]] += count_V[row]
        unused_E[table_VK[row]] += count_V[row] == 0
    return table_VK


@dataclasses.dataclass(frozen=True)
class BlockTable(Table):
    """Hash k deals keys uniformly to the k-th block of experts."""

    def init(self, key, rows, E, K):
        """Draws the K tables independently."""
        block = E // K
        draw_VK = jax.random.randint(key, (rows, K), 0, block, jnp.int32)
        return draw_VK + block * jnp.arange(K, dtype=jnp.int32)[None]
