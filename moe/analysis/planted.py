"""Traces whose answer is known: text with planted structure, and a router that follows one part.

The controls of the metrics: each finds what was planted, and nothing in a router that follows
something else. Desks are dealt to documents and classes to ids by lot, so neither tells of the
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from moe.analysis.trace import About, LayerTrace, Trace
from moe.data import labels
from moe.data.data import BANDS

WIDTH, DESKS, CLASSES = 16, 4, 5
OWN, COMMON, ONCE = 28, 32, 0.03  # ids of a cluster, ids of all, share of tokens that stand once
STAY = 0.7  # to go on in a cluster
ALIKE, PAIRED = 0.3, 0.6  # cosines of all centres, and of those of a pair before that
SCALE = 4.0  # length of the planted router's directions

Followed = Literal["cluster", "desk", "class", "token", "position", "untrained", "nothing"]


@dataclass(frozen=True)
class Planted:
    """A text of windows * length tokens, two windows a document, and a router of one layer.

    Attributes:
      follows: what its first choice is a function of; "cluster" is linear in the input, its
        directions the centres, whose pairs are alike; "untrained" is linear with random
        directions; "nothing" draws.
      drops: how much likelier a late, a last-ranked and a rare choice is to be dropped, and nats
        that a token then loses; all are dropped at a rate of 0.05 besides.
      strength: how often a label is followed; else the expert is drawn.
      text, router: seeds; the text and its inputs hang on the first alone.
    """

    follows: Followed = "cluster"
    experts: int = 8
    choices: int = 2
    windows: int = 128
    length: int = 32
    drops: float = 0.0
    strength: float = 0.9
    text: int = 0
    router: int = 0

    def trace(self) -> Trace:
        """The whole trace; every token is sampled where there are up to 4096, else as many."""
        words, values = _text(self)
        generator = np.random.default_rng([1, self.router])
        expert_TK, margin_T, w_DE = self._routed(words, values, generator)
        kept_TK, loss_T = self._dropped(words, values, generator)
        T = len(expert_TK)
        sample_S = np.linspace(0, T - 1, min(T, 4096)).astype(np.int32)
        layer = LayerTrace(
            layer=0,
            num_experts=self.experts,
            router="TopK" if w_DE is not None else "Labelled",
            expert_TK=expert_TK.astype(np.int16),
            gate_TK=np.full(expert_TK.shape, 1 / self.choices, np.float32),
            kept_TK=kept_TK,
            margin_T=margin_T.astype(np.float32),
            sample_S=sample_S,
            input_SD=values["input"][sample_S].astype(np.float32),
            matrix_DE=w_DE,
        )
        return Trace(
            about=_about(self, len(values["class_V"])),
            id_T=words["token"],
            target_T=values["target"],
            position_T=words["position"],
            document_T=values["document"],
            desk_T=words["desk"].astype(np.int16),
            class_T=words["class"].astype(np.int16),
            loss_T=loss_T.astype(np.float32),
            layers=(layer,),
        )

    def _routed(self, words, values, generator):
        """expert_TK, margin_T, w_DE or None."""
        T, E, k = len(words["token"]), self.experts, self.choices
        if self.follows in ("cluster", "untrained"):
            w_DE = generator.standard_normal((WIDTH, E)) / WIDTH**0.5
            if self.follows == "cluster":
                w_DE = values["centre"][generator.permutation(E)].T
            w_DE = (SCALE * w_DE).astype(np.float32)
            logit_TE = values["input"] @ w_DE
            order_TE = np.argsort(-logit_TE, axis=1, kind="stable")
            ranked_TE = np.take_along_axis(logit_TE, order_TE, axis=1)
            margin_T = ranked_TE[:, k - 1] - ranked_TE[:, k] if k < E else np.full(T, np.nan)
            return order_TE[:, :k], margin_T, w_DE
        order_TE = np.argsort(generator.random((T, E)), axis=1)
        if self.follows != "nothing":
            label_T = words[self.follows]
            table = generator.permutation(np.arange(int(label_T.max()) + 1) % E)
            first_T = np.where(generator.random(T) < self.strength, table[label_T], order_TE[:, 0])
            place_T = np.argmax(order_TE == first_T[:, None], axis=1)
            order_TE[np.arange(T), place_T] = order_TE[:, 0]
            order_TE[:, 0] = first_T
        return order_TE[:, :k], np.full(T, np.nan), None

    def _dropped(self, words, values, generator):
        """kept_TK, loss_T: rare tokens cost more, and those that lose a choice `drops` more."""
        T, K = len(words["token"]), self.choices
        band_V = labels.frequency_band(values["count_V"])
        rare_T = band_V[words["token"]] >= BANDS // 2
        late_T = words["position"] >= self.length * 7 // 8
        more_TK = np.add.outer(rare_T.astype(float) + late_T, np.arange(K) == K - 1)
        kept_TK = generator.random((T, K)) >= 0.05 + self.drops * more_TK / 4
        loss_T = 2 + rare_T + 0.3 * generator.standard_normal(T) + self.drops * ~kept_TK.all(axis=1)
        return kept_TK, np.where(values["target"] >= 0, loss_T, np.nan)


def _text(planted: Planted) -> tuple[dict, dict]:
    """What a token is, by name (int32 [T]), and the rest: inputs, centres, counts, targets."""
    generator, C = np.random.default_rng([0, planted.text]), planted.experts
    T = planted.windows * planted.length
    document_T = np.arange(T) // (2 * planted.length)
    documents = int(document_T[-1]) + 1
    begins_T = (np.diff(document_T, prepend=-1) > 0) | (generator.random(T) >= STAY)
    draw_T = generator.integers(C, size=T)
    cluster_T = draw_T[np.maximum.accumulate(np.where(begins_T, np.arange(T), 0))]
    id_T = C * _zipf(OWN, T, generator) + cluster_T
    shared_T = generator.random(T) < 0.15
    id_T = np.where(shared_T, C * OWN + _zipf(COMMON, T, generator), id_T)
    once_T = generator.random(T) < ONCE
    V = C * OWN + COMMON + int(once_T.sum())
    id_T[once_T] = np.arange(C * OWN + COMMON, V)
    class_V = generator.integers(CLASSES, size=V)
    desk_U = generator.permutation(np.arange(documents) % DESKS)
    unit = generator.standard_normal((V + C + 1, WIDTH))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    centre_CD = unit[:C]
    even_CD, odd_CD = centre_CD[: C - C % 2 : 2], centre_CD[1::2]
    odd_CD -= (odd_CD * even_CD).sum(axis=1, keepdims=True) * even_CD
    odd_CD *= (1 - PAIRED**2) ** 0.5 / np.linalg.norm(odd_CD, axis=1, keepdims=True)
    odd_CD += PAIRED * even_CD
    centre_CD = (1 - ALIKE) ** 0.5 * centre_CD + ALIKE**0.5 * unit[-1]
    noise_TD = generator.standard_normal((T, WIDTH)) * 0.1
    words = {
        "token": id_T.astype(np.int32),
        "cluster": cluster_T,
        "desk": desk_U[document_T],
        "class": class_V[id_T],
        "position": (np.arange(T) % planted.length).astype(np.int32),
    }
    values = {
        "document": document_T.astype(np.int32),
        "target": np.append(id_T[1:], -1).astype(np.int32),
        "input": centre_CD[cluster_T] + 0.4 * unit[C:-1][id_T] + noise_TD,
        "centre": centre_CD,
        "class_V": class_V,
        "count_V": np.bincount(id_T, minlength=V),
    }
    return words, values


def _zipf(number: int, T: int, generator: np.random.Generator) -> np.ndarray:
    """T draws of 0 to number - 1, the n-th with a probability of about 1 / n."""
    share = 1 / np.arange(1, number + 1)
    return generator.choice(number, size=T, p=share / share.sum())


def _about(planted: Planted, V: int) -> About:
    return About(
        label=f"planted {planted.follows} {planted.router}",
        study="",
        arm="planted",
        seed=planted.router,
        step=0,
        experiment=repr(planted),
        vocabulary=tuple(f"w{n}" for n in range(V)),
        desks=tuple(f"desk{n}" for n in range(DESKS)),
        classes=tuple(f"class{n}" for n in range(CLASSES)),
        parameters="",
        num_layers=1,
    )
