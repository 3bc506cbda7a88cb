"""Are experts clusters of what the router reads, or classes that people name?

Adjusted mutual information (Vinh et al., JMLR 11, 2010; scikit-learn) of the first choice with
k-means clusters of the router's inputs and with labels, over the tokens whose inputs are kept.
Inputs are compared by direction, since a linear router's regions are cones.
"""

from dataclasses import dataclass

import numpy as np

from moe.analysis import chance
from moe.analysis.contract import Reading, absent, reading
from moe.analysis.information import entropy, told
from moe.analysis.trace import LayerTrace, Trace
from moe.routers.parts import clusters

SMALL = 1e-6  # directions with less than this share of the largest variance are left out
NAMES = ("ami_cluster", "ami_cluster_whitened", "ami_class", "ami_desk")
DIFFERENCES = {"cluster_minus_class": "ami_cluster", "cluster_minus_class_equal": "ami_equal"}


def ami(one_S: np.ndarray, two_S: np.ndarray) -> float:
    """1 for the same grouping, 0 for what chance gives; the mean entropy is the scale.

    As `sklearn.metrics.adjusted_mutual_info_score`, on numbers, without its checks of each label.
    """
    from sklearn.metrics.cluster import expected_mutual_information

    count = chance.table(one_S, two_S, (int(one_S.max()) + 1, int(two_S.max()) + 1))
    count = count[count.any(axis=1)][:, count.any(axis=0)]
    if count.shape == (1, 1):
        return 1.0  # neither divides anything
    expected = float(expected_mutual_information(count, len(one_S)))
    scale = (entropy(count.sum(axis=1)) + entropy(count.sum(axis=0))) / 2 - expected
    return (told(count) - expected) / scale if scale > 1e-12 else 0.0


def groups(vector_SD: np.ndarray, number: int, seed: int) -> np.ndarray:
    """The k-means cluster of each row, of several starts, ties by rule."""
    centroid_CD = clusters.kmeans(vector_SD, number, np.random.default_rng(seed))
    return clusters.squares(vector_SD, centroid_CD).argmin(axis=1)


def whitened(vector_SD: np.ndarray) -> np.ndarray:
    """Rows with unit variance in every direction that has any, then of length 1."""
    centred = vector_SD - vector_SD.mean(axis=0)
    value_D, turn_DD = np.linalg.eigh(centred.T @ centred / len(centred))
    kept = value_D > SMALL * value_D[-1]
    return clusters.unit(centred @ turn_DD[:, kept] / np.sqrt(value_D[kept]))


@dataclass(frozen=True)
class Clusters:
    """Readings: ami_cluster (E clusters), ami_cluster_whitened, ami_class, ami_desk, and two
    differences, cluster_minus_class and cluster_minus_class_equal.

    The latter has as many clusters as there are classes: with fewer groups than experts a label
    cannot reach 1. Details of ami_cluster: `restart`, the clusters against those of other starts
    (the ceiling), and `hash`, a random table of ids against the clusters (the floor).
    """

    draws: int = chance.DRAWS

    def __call__(
        self, trace: Trace, layer: LayerTrace, generator: np.random.Generator
    ) -> list[Reading]:
        """In about [0, 1]; None for labels that are not known.

        The null of clusters and of differences shuffles the experts among the sampled tokens; that
        of labels deals classes anew among ids, and desks among documents.
        """
        expert_S = chance.first_choice(layer)[layer.sample_S]
        chosen = np.flatnonzero(expert_S < layer.num_experts)
        sample_S, expert_S = layer.sample_S[chosen], expert_S[chosen]
        input_SD = np.asarray(layer.input_SD, np.float64)[chosen]
        if len(sample_S) < 2 or not input_SD.any():
            return absent(*NAMES, *DIFFERENCES)
        group = self._groups(trace, layer, sample_S, input_SD)
        shuffled = [generator.permutation(expert_S) for _ in range(self.draws)]
        null = {name: np.array([ami(e, of) for e in shuffled]) for name, of in group.items()}
        value = {name: ami(expert_S, of) for name, of in group.items()}
        for name, of in DIFFERENCES.items():
            if "ami_class" in group:
                value[name] = value[of] - value["ami_class"]
                null[name] = null[of] - null["ami_class"]
        for name, unit_T in (("ami_class", trace.id_T), ("ami_desk", trace.document_T)):
            if name in group:
                unit_S = unit_T[sample_S]
                dealt = (chance.by_unit(group[name], unit_S, generator) for _ in shuffled)
                null[name] = np.array([ami(expert_S, of) for of in dealt])
        table_V = generator.integers(layer.num_experts, size=int(trace.id_T.max()) + 1)
        again_S = groups(clusters.unit(input_SD), layer.num_experts, 1)
        ends = {
            "restart": ami(group["ami_cluster"], again_S),
            "hash": ami(group["ami_cluster"], table_V[trace.id_T[sample_S]]),
        }
        return [
            reading(name, value.get(name), null.get(name, ()), ends if name == NAMES[0] else {})
            for name in (*NAMES, *DIFFERENCES)
        ]

    def _groups(self, trace, layer, sample_S, input_SD):
        """Name -> the group of each sampled token; a label that is not known is left out."""
        unit_SD = clusters.unit(input_SD)
        class_S, desk_S = trace.class_T[sample_S], trace.desk_T[sample_S]
        found = {
            "ami_cluster": groups(unit_SD, layer.num_experts, 0),
            "ami_cluster_whitened": groups(whitened(input_SD), layer.num_experts, 0),
        }
        if (class_S >= 0).any():
            found["ami_class"] = class_S + 1  # what is not known is a group
            found["ami_equal"] = groups(unit_SD, len(np.unique(class_S)), 0)
        if (desk_S >= 0).any():
            found["ami_desk"] = desk_S + 1
        return found
