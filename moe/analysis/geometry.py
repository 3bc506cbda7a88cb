"""The regions of a linear router: cones of directions, how far tokens are from their borders.

Without a bias the best expert of x is that of the largest w_e . x: a cone, whatever the length of
x, and the nearest direction on the sphere where all w_e are of one length. The null of each reading
is a router of random directions with the same lengths, that reads the same inputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from moe.analysis import chance
from moe.analysis.clusters import groups
from moe.analysis.contract import Reading, absent, reading
from moe.analysis.trace import LayerTrace, Trace
from moe.routers.parts.clusters import unit

NEAR = 0.1  # logits: a token with a smaller margin is near a border
NOISE = 0.1  # of the length of the input
LINEAR = ("margin", "near_border", "border_distance", "flips", "cone", "direction_cosine")
LENGTHS = ("norm_variation", "nearest_direction")


def regions(x_SD: np.ndarray, w_DE: np.ndarray, k: int, noise_SD: np.ndarray) -> dict[str, float]:
    """What the tokens of a sample are to the regions of a router, by reading.

    margin: median logit of the k-th expert over the next; near_border: share of tokens where it is
    below NEAR. border_distance: from x to the border between its two best experts, over its length,
    median. flips: share whose k experts change with the noise. cone: mean cosine of x and its
    expert. direction_cosine: mean of all pairs of experts. nearest_direction: share whose expert is
    the nearest direction, 1 where all w_e are of one length.
    """
    logit_SE, E = x_SD @ w_DE, w_DE.shape[1]
    order_SE = np.argsort(-logit_SE, axis=1, kind="stable")
    ranked_SE = np.take_along_axis(logit_SE, order_SE, axis=1)
    first, second = order_SE[:, 0], order_SE[:, 1]
    apart = np.linalg.norm(w_DE[:, first] - w_DE[:, second], axis=0)
    length_S = np.linalg.norm(x_SD, axis=1)
    distance = (ranked_SE[:, 0] - ranked_SE[:, 1]) / np.maximum(apart * length_S, 1e-30)
    length_E = np.linalg.norm(w_DE, axis=0)
    direction_DE = w_DE / np.maximum(length_E, 1e-30)
    cosine_SE = x_SD @ direction_DE / np.maximum(length_S, 1e-30)[:, None]
    between_EE = direction_DE.T @ direction_DE
    noisy = np.argsort(-((x_SD + noise_SD) @ w_DE), axis=1, kind="stable")
    found = {
        "border_distance": float(np.median(distance)),
        "flips": float((np.sort(noisy[:, :k]) != np.sort(order_SE[:, :k])).any(axis=1).mean()),
        "cone": float(cosine_SE[np.arange(len(first)), first].mean()),
        "direction_cosine": float((between_EE.sum() - np.trace(between_EE)) / (E * (E - 1))),
        "nearest_direction": float((cosine_SE.argmax(axis=1) == first).mean()),
    }
    margin_S = ranked_SE[:, k - 1] - ranked_SE[:, k] if k < E else np.full(len(first), np.nan)
    return found | margins(margin_S)


def margins(margin: np.ndarray) -> dict[str, float]:
    """Median, and the share below NEAR, of those that are known."""
    known = margin[np.isfinite(margin)]
    if not len(known):
        return {"margin": np.nan, "near_border": np.nan}
    return {"margin": float(np.median(known)), "near_border": float((known < NEAR).mean())}


def cohesion(x_SD: np.ndarray, group_S: np.ndarray) -> float:
    """1 - variance within groups / total variance: 0 for groups at random, 1 for points."""
    total = np.square(x_SD - x_SD.mean(axis=0)).sum()
    size_G = np.bincount(group_S)
    sum_GD = np.zeros((len(size_G), x_SD.shape[1]))
    np.add.at(sum_GD, group_S, x_SD)
    mean_GD = sum_GD / np.maximum(size_G, 1)[:, None]
    return float(1 - np.square(x_SD - mean_GD[group_S]).sum() / total) if total > 0 else np.nan


@dataclass(frozen=True)
class Geometry:
    """Readings of `regions`; norm_variation, deviation over mean of the lengths of w_e; cohesion.

    margin and near_border are those of the router itself, with its bias and in its own units, and
    have a null where those are the logits. The null of cohesion shuffles the experts; its details
    are k-means (the ceiling) and a random table of ids (the floor). A router that is not linear in
    its input has margins and cohesion alone; a detail of margin, `linear`, is the share of tokens
    whose expert is that of the largest logit.
    """

    draws: int = chance.DRAWS

    def __call__(
        self, trace: Trace, layer: LayerTrace, generator: np.random.Generator
    ) -> list[Reading]:
        """Of the tokens whose input is kept; None where the router has no such thing."""
        expert_S = chance.first_choice(layer)[layer.sample_S]
        kept = np.flatnonzero(expert_S < layer.num_experts)
        x_SD = np.asarray(layer.input_SD, np.float64)[kept]
        if len(kept) < 2 or layer.num_experts < 2:
            return absent(*LINEAR, *LENGTHS, "cohesion")
        sample_S, expert_S = layer.sample_S[kept], expert_S[kept]
        own = margins(layer.margin_T[sample_S])
        if layer.matrix_DE is None:
            found = [reading(name, own.get(name)) for name in (*LINEAR, *LENGTHS)]
        else:
            found = self._linear((x_SD, expert_S), layer, own, generator)
        null = [cohesion(x_SD, generator.permutation(expert_S)) for _ in range(self.draws)]
        table_V = generator.integers(layer.num_experts, size=int(trace.id_T.max()) + 1)
        detail = {
            "kmeans": cohesion(x_SD, groups(unit(x_SD), layer.num_experts, 0)),
            "hash": cohesion(x_SD, table_V[trace.id_T[sample_S]]),
        }
        return [*found, reading("cohesion", cohesion(x_SD, expert_S), null, detail)]

    def _linear(self, sample, layer, own: Mapping[str, float], generator) -> list[Reading]:
        x_SD, expert_S = sample
        w_DE, k = np.asarray(layer.matrix_DE, np.float64), layer.expert_TK.shape[1]
        k = k if k < layer.num_experts else 1  # as many as each token likes: the best alone
        length_S1 = np.linalg.norm(x_SD, axis=1, keepdims=True)
        noise = generator.standard_normal(x_SD.shape)
        noise *= NOISE * length_S1 / np.linalg.norm(noise, axis=1, keepdims=True)
        length_E = np.linalg.norm(w_DE, axis=0)
        drawn, spread = [], []
        for _ in range(self.draws):
            random_DE = generator.standard_normal(w_DE.shape)
            norm_E = np.linalg.norm(random_DE, axis=0)
            spread.append(norm_E.std() / norm_E.mean())
            drawn.append(regions(x_SD, random_DE / norm_E * length_E, k, noise))
        null = {name: [each[name] for each in drawn] for name in drawn[0]}
        null["norm_variation"] = spread
        value = regions(x_SD, w_DE, k, noise)
        if not np.isclose(own["margin"], value["margin"], rtol=0.01):
            null |= {name: [] for name in own}
        value |= own
        value["norm_variation"] = float(length_E.std() / max(length_E.mean(), 1e-30))
        agrees = float(((x_SD @ w_DE).argmax(axis=1) == expert_S).mean())
        return [
            reading(name, value[name], null[name], {"linear": agrees} if name == "margin" else {})
            for name in (*LINEAR, *LENGTHS)
        ]
