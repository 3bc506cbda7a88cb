"""Ids that are alike: vectors by the company they keep, and k-means whose ties go by rule."""

from typing import Any, cast

import numpy as np

from moe.data.counts import Corpus

EQUAL = 1e-6  # what differs by less, relatively, is equal
DIGITS = 9  # squared distances of unit vectors are compared to so many decimals
STARTS, SHORT, LONG = 8, 10, 50  # k-means: starts, steps of each, steps more of the best


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
    smaller, kept = min(V, 2 * len(context)), np.ones(1, bool)
    u, s = np.empty((V, 0)), np.empty(0)
    if width + 1 < smaller:
        start = np.random.default_rng(0).standard_normal(smaller)  # unlike ones, in no symmetry
        u, s = cast(Any, linalg.svds(ppmi, k=width + 1, v0=start))[:2]
        kept = _first(s, width)
    if kept.all():  # more may be equal
        u, s, _ = np.linalg.svd(ppmi.toarray(), full_matrices=False)
        kept = _first(s, width)
    return unit(u[:, kept] * np.sqrt(s[kept]))


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
        inertia = squares(vector_NA, centroid_CA).min(axis=1).sum()
        if inertia < least * (1 - EQUAL):
            best_CA, least = centroid_CA, inertia
    return _steps(vector_NA, best_CA, LONG)


def _steps(vector_NA, centroid_CA, most):
    """Lloyd's: at a tie the first centroid gets the row; an empty cluster keeps its place."""
    from scipy import sparse

    N, C = len(vector_NA), len(centroid_CA)
    for _ in range(most):
        cluster_N = squares(vector_NA, centroid_CA).argmin(axis=1)
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
    square_N = squares(vector_NA, vector_NA[chosen])[:, 0]
    while len(chosen) < E and square_N.any():
        total_N = np.cumsum(square_N)
        draw = generator.random(2 + int(np.log(E))) * total_N[-1]
        drawn = np.searchsorted(total_N, draw, side="right")
        square_NL = np.minimum(square_N[:, None], squares(vector_NA, vector_NA[drawn]))
        inertia_L = square_NL.sum(axis=0)
        best = np.argmax(inertia_L <= inertia_L.min() * (1 + EQUAL))
        chosen.append(drawn[best])
        square_N = square_NL[:, best]
    return vector_NA[chosen]


def squares(vector_NA: np.ndarray, centroid_CA: np.ndarray) -> np.ndarray:
    """Squared distances to DIGITS decimals; never of shape N x C x A."""
    square_NC = vector_NA @ centroid_CA.T
    square_NC *= -2
    square_NC += np.square(vector_NA).sum(axis=1, keepdims=True)
    square_NC += np.square(centroid_CA).sum(axis=1)[None]
    return np.maximum(np.round(square_NC, DIGITS, out=square_NC), 0, out=square_NC)


def unit(vector_VA: np.ndarray) -> np.ndarray:
    """Rows of norm 1; those that are nothing but rounding beside the longest are zero."""
    norm_V1 = np.linalg.norm(vector_VA, axis=1, keepdims=True)
    return np.where(norm_V1 > norm_V1.max() * 1e-9, vector_VA, 0) / np.maximum(norm_V1, 1e-300)
