"""How hash layers deal keys to experts: the tables of arXiv 2106.04426, section 3."""

import dataclasses
from typing import ClassVar, Protocol

import numpy as np

from moe.routing import Corpus

EQUAL = 1e-6  # what differs by less, relatively, is equal
DIGITS = 9  # squared distances of unit vectors are compared to so many decimals
STARTS, SHORT, LONG = 8, 10, 50  # k-means: starts, steps of each, steps more of the best


class Table(Protocol):
    """Builds the table from a row (a key) to K distinct experts, on the host, before step 0."""

    kind: ClassVar[str] = "table"
    of_tokens: ClassVar[bool] = False  # needs rows that are token ids

    def fit(
        self, expert_VK: np.ndarray, E: int, count_V: np.ndarray, corpus: Corpus, seed: int
    ) -> np.ndarray:
        """Returns expert_VK, given the random table of `Hash.init` and how often rows are used."""
        ...

    def check(self, path: str) -> None:
        """Raises ValueError, one line that starts with `path`, for impossible fields."""
        del path


@dataclasses.dataclass(frozen=True)
class RandomTable(Table):
    """Every row draws K distinct experts uniformly: even over rows, uneven over tokens."""

    def fit(self, expert_VK, E, count_V, corpus, seed):
        """Keeps the random table."""
        del E, count_V, corpus, seed
        return expert_VK


@dataclasses.dataclass(frozen=True)
class BalancedTable(Table):
    """Rows from most to least frequent, each to the K experts with the least load so far.

    Cannot balance when one row alone is more than 1/E of all tokens (max violation is then at
    least E * p - 1). Equal counts and equal loads are broken at random by the seed.
    """

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
    width: int = 32

    of_tokens: ClassVar[bool] = True

    def fit(self, expert_VK, E, count_V, corpus, seed):
        """Returns the K nearest centroids of every id."""
        del count_V
        distance_VE = self.distances(E, corpus, seed)
        return np.argsort(distance_VE, axis=1, kind="stable")[:, : expert_VK.shape[1]]

    def distances(self, E: int, corpus: Corpus, seed: int) -> np.ndarray:
        """Squared distance of every id to every k-means centroid, to DIGITS decimals.

        Clusters are those of the ids in the text, numbered by their lowest id. Ids that nothing is
        known of (zeros) are no part of them. With fewer clusters than E, the others are at inf.
        """
        vector_VA = self._vectors(len(corpus.count_V), corpus)
        known = (corpus.count_V > 0) & np.any(vector_VA != 0, axis=1)
        centroid_CA = kmeans(vector_VA[known], E, np.random.default_rng(seed))
        distance_VC = _squares(vector_VA, centroid_CA)
        cluster, first = np.unique(distance_VC[known].argmin(axis=1), return_index=True)
        distance_VE = np.full((len(vector_VA), E), np.inf)
        distance_VE[:, : len(cluster)] = distance_VC[:, cluster[np.argsort(first)]]
        return distance_VE

    def _vectors(self, V: int, corpus: Corpus) -> np.ndarray:
        if not self.embedding:
            return cooccurrence(corpus, self.width)
        vector_VA = np.load(self.embedding, allow_pickle=False).astype(np.float64)
        if vector_VA.ndim != 2 or len(vector_VA) != V:
            raise ValueError(
                f"table.embedding={self.embedding}: has shape {vector_VA.shape}, must be "
                f"(vocab_size={V}, any)"
            )
        if not np.isfinite(vector_VA).all():
            raise ValueError(f"table.embedding={self.embedding}: must be finite")
        return _unit(vector_VA)

    def check(self, path):
        """Raises ValueError for a width < 1 or a file that is not there."""
        import pathlib

        if self.width < 1:
            raise ValueError(f"{path}.width={self.width}: must be >= 1")
        if self.embedding and not pathlib.Path(self.embedding).is_file():
            raise ValueError(f"{path}.embedding={self.embedding}: no such file")


@dataclasses.dataclass(frozen=True)
class DispersedTable(ClusteredTable):
    """Alike ids are kept apart: each cluster is dealt evenly over all experts."""

    def fit(self, expert_VK, E, count_V, corpus, seed):
        """Deals cluster after cluster, its most frequent ids first, to the least loaded experts.

        Loads are those within the cluster; between clusters, the total load breaks ties.
        """
        cluster_V = np.argmin(self.distances(E, corpus, seed), axis=1)
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
    order: np.ndarray, count_V: np.ndarray, K: int, load_E: np.ndarray, generator
) -> np.ndarray:
    """Gives the rows in that order to the K least loaded experts; rows not in it get expert 0."""
    table_VK, load_E = np.zeros((len(count_V), K), np.int32), load_E.astype(float)
    for row in order:
        table_VK[row] = np.lexsort((generator.random(len(load_E)), load_E))[:K]
        load_E[table_VK[row]] += count_V[row]
    return table_VK


def cooccurrence(corpus: Corpus, width: int) -> np.ndarray:
    """Unit vectors of ids from positive PMI with the ids one place before and after.

    Levy and Goldberg (2014): a truncated singular value decomposition of PPMI, rows scaled by the
    square root of the singular values. Contexts are the (at most) 1000 most frequent ids.

    Singular values that equal the last of `width`, within EQUAL, come with it: a cut through
    equal ones would be arbitrary. So are signs and turns among equal ones; distances ignore those.
    """
    from scipy import sparse
    from scipy.sparse import linalg

    V = len(corpus.count_V)
    context = np.argsort(-corpus.count_V, kind="stable")[:1000]
    place_V = np.full(V, -1)
    place_V[context] = np.arange(len(context))
    left, right = (np.asarray(part, np.int64) for part in (corpus.token_S[:-1], corpus.token_S[1:]))
    blocks = []
    for token, other in ((left, right), (right, left)):
        kept = place_V[other] >= 0
        shape = (V, len(context))
        ones = np.ones(kept.sum())
        blocks.append(sparse.coo_matrix((ones, (token[kept], place_V[other[kept]])), shape).tocsr())
    count = sparse.hstack(blocks).tocoo()
    row, column = (np.asarray(count.sum(axis=a)).ravel() for a in (1, 0))
    pmi = np.log(count.data * count.sum() / (row[count.row] * column[count.col]))
    ppmi = sparse.csr_matrix((np.maximum(pmi, 0), (count.row, count.col)), count.shape)
    smaller, kept = min(ppmi.shape), np.ones(1, bool)
    if width + 1 < smaller:
        start = np.random.default_rng(0).standard_normal(smaller)  # unlike ones, in no symmetry
        u, s, _ = linalg.svds(ppmi, k=width + 1, v0=start)
        kept = _first(s, width)
    if kept.all():  # more may be equal
        u, s, _ = np.linalg.svd(ppmi.toarray(), full_matrices=False)
        kept = _first(s, width)
    return _unit(u[:, kept] * np.sqrt(s[kept]))


def _first(s, width):
    """Which singular values are among the largest `width`, or equal them, and not zero."""
    last = np.sort(s)[-min(width, len(s))]
    return s > max(last * (1 - EQUAL), s.max() * EQUAL)


def kmeans(vector_NA: np.ndarray, E: int, generator: np.random.Generator) -> np.ndarray:
    """The best of several starts of k-means on unit vectors: at most E centroids.

    Not scipy's, where last bits place a row that is as near to two centroids, as are all rows of
    a family that shares no context with those that hold one. A start replaces the best only when
    its inertia is lower by more than rounding.
    """
    best_CA, least = np.zeros((1, vector_NA.shape[1])), np.inf
    for _ in range(STARTS if len(vector_NA) else 0):
        centroid_CA = _steps(vector_NA, _seeds(vector_NA, E, generator), SHORT)
        inertia = _squares(vector_NA, centroid_CA).min(axis=1).sum()
        if inertia < least * (1 - EQUAL):
            best_CA, least = centroid_CA, inertia
    return _steps(vector_NA, best_CA, LONG)


def _steps(vector_NA, centroid_CA, most):
    """Lloyd's: at a tie the first centroid gets the row; an empty cluster keeps its place."""
    from scipy import sparse

    N, C = len(vector_NA), len(centroid_CA)
    for _ in range(most):
        cluster_N = _squares(vector_NA, centroid_CA).argmin(axis=1)
        size_C1 = np.bincount(cluster_N, minlength=C)[:, None]
        member_NC = sparse.csr_array((np.ones(N), cluster_N, np.arange(N + 1)), (N, C))
        mean_CA = member_NC.T @ vector_NA / np.maximum(size_C1, 1)
        moved_CA = np.where(size_C1 > 0, mean_CA, centroid_CA)
        if np.array_equal(moved_CA, centroid_CA):
            break
        centroid_CA = moved_CA
    return centroid_CA


def _seeds(vector_NA, E, generator):
    """Greedy k-means++ (Arthur and Vassilvitskii, 2007): of a few rows drawn, the best each time.

    Fewer than E where there are fewer distinct rows. Linear in E, which scipy's is not.
    """
    chosen = [generator.integers(len(vector_NA))]
    square_N = _squares(vector_NA, vector_NA[chosen])[:, 0]
    while len(chosen) < E and square_N.any():
        total_N = np.cumsum(square_N)
        draw = generator.random(2 + int(np.log(E))) * total_N[-1]
        drawn = np.searchsorted(total_N, draw, side="right")
        square_NL = np.minimum(square_N[:, None], _squares(vector_NA, vector_NA[drawn]))
        inertia_L = square_NL.sum(axis=0)
        best = np.argmax(inertia_L <= inertia_L.min() * (1 + EQUAL))
        chosen.append(drawn[best])
        square_N = square_NL[:, best]
    return vector_NA[chosen]


def _squares(vector_NA, centroid_CA):
    """Squared distances to DIGITS decimals; never of shape N x C x A."""
    square_NC = vector_NA @ centroid_CA.T
    square_NC *= -2
    square_NC += np.square(vector_NA).sum(axis=1, keepdims=True)
    square_NC += np.square(centroid_CA).sum(axis=1)[None]
    return np.maximum(np.round(square_NC, DIGITS, out=square_NC), 0, out=square_NC)


def _unit(vector_VA: np.ndarray) -> np.ndarray:
    """Rows of norm 1; those that are nothing but rounding beside the longest are zero."""
    norm_V1 = np.linalg.norm(vector_VA, axis=1, keepdims=True)
    return np.where(norm_V1 > norm_V1.max() * 1e-9, vector_VA, 0) / np.maximum(norm_V1, 1e-300)
