"""Which tokens are dropped, by place, rank and frequency, and what it costs them.

Left-to-right capacity drops late tokens (OpenMoE, arXiv 2402.01739, section 4.3).
"""

from dataclasses import dataclass

import numpy as np

from moe.analysis import chance
from moe.analysis.contract import Reading, absent, reading
from moe.analysis.trace import LayerTrace, Trace
from moe.data import labels
from moe.data.data import BANDS

PLACES = 8  # equal parts of a window
NAMES = ("dropped_late", "dropped_last_rank", "dropped_rare", "loss_of_dropped")


def rates(group_R: np.ndarray, dropped_R: np.ndarray, groups: int) -> np.ndarray:
    """Drop rate of the assignments of each group; NaN for a group that has none."""
    asked = np.bincount(group_R, minlength=groups)
    dropped = np.bincount(group_R, weights=dropped_R, minlength=groups)
    return dropped / np.where(asked > 0, asked, np.nan)


def ends(rate_G: np.ndarray) -> float:
    """The last group's rate less the first's, of those that have one."""
    known = rate_G[np.isfinite(rate_G)]
    return float(known[-1] - known[0]) if len(known) > 1 else np.nan


def matched_gap(loss_T: np.ndarray, dropped_T: np.ndarray, stratum_T: np.ndarray) -> float:
    """Mean loss of dropped less kept tokens within strata, weighed by the dropped of each."""
    strata = int(stratum_T.max()) + 1
    groups = (dropped_T, ~dropped_T)
    count = np.stack([np.bincount(stratum_T[g], minlength=strata) for g in groups])
    total = np.stack([np.bincount(stratum_T[g], loss_T[g], strata) for g in groups])
    both = (count > 0).all(axis=0)
    if not both.any():
        return np.nan
    mean = total[:, both] / count[:, both]
    return float(np.average(mean[0] - mean[1], weights=count[0, both]))


@dataclass(frozen=True)
class Drops:
    """Readings: drop_rate and drop_all (tokens with nothing left), which have no null; then

    dropped_late: rate in the last eighth of the window less the first; null: windows turned.
    dropped_last_rank: the last rank less the first; null: ranks shuffled in each token.
    dropped_rare: the rarer half of the tokens less the other; null: bands dealt among the ids.
    loss_of_dropped: nats of tokens that lost a choice over the others, within bands of frequency
      of the token and of the next one; null: shuffled within them.
    """

    draws: int = chance.DRAWS

    def __call__(
        self, trace: Trace, layer: LayerTrace, generator: np.random.Generator
    ) -> list[Reading]:
        """Rates in [0, 1], differences in [-1, 1]; None where nothing was dropped."""
        asked_TK = layer.expert_TK < layer.num_experts
        lost_TK = asked_TK & ~layer.kept_TK
        asked_T, lost_T = asked_TK.any(axis=1), lost_TK.any(axis=1)
        whole_T = asked_T & ~(asked_TK & layer.kept_TK).any(axis=1)
        found = [
            reading("drop_rate", lost_TK.sum() / max(1, asked_TK.sum())),
            reading("drop_all", whole_T.sum() / max(1, asked_T.sum())),
        ]
        if not lost_T.any():
            return found + absent(*NAMES)
        found.append(self._late(trace, (asked_TK, lost_TK), generator))
        found.append(self._rank(asked_TK, lost_TK, generator))
        count_V = np.bincount(trace.id_T)
        band_V = labels.frequency_band(count_V)
        found.append(self._rare((band_V, trace.id_T), (asked_TK, lost_TK), generator))
        known = (trace.target_T >= 0) & np.isfinite(trace.loss_T) & asked_T
        target_T = np.minimum(trace.target_T, len(band_V) - 1)  # a last token that is never read
        stratum_T = (band_V[trace.id_T] * BANDS + band_V[target_T])[known]
        return [*found, self._loss(trace.loss_T[known], lost_T[known], stratum_T, generator)]

    def _late(self, trace, of, generator):
        asked_TK, lost_TK = of
        token_R, _ = np.nonzero(asked_TK)
        lost_R = lost_TK[asked_TK]

        def by_place(position_T):
            return rates(position_T[token_R] * PLACES // trace.length, lost_R, PLACES)

        turns = (chance.turned(trace, generator) for _ in range(self.draws))
        null = [ends(by_place(position_T)) for position_T in turns]
        found = by_place(trace.position_T)
        return reading("dropped_late", ends(found), null, {"rate": found})

    def _rank(self, asked_TK, lost_TK, generator):
        K = asked_TK.shape[1]

        def by_rank(rank_TK):
            return rates(rank_TK[asked_TK], lost_TK[asked_TK], K)

        rank_TK = np.broadcast_to(np.arange(K), asked_TK.shape)
        shuffled = (generator.permuted(rank_TK, axis=1) for _ in range(self.draws))
        found = by_rank(rank_TK)
        null = [ends(by_rank(other)) for other in shuffled] if K > 1 else []
        return reading("dropped_last_rank", ends(found), null, {"rate": found})

    def _rare(self, ids, of, generator):
        band_V, id_T = ids
        asked_TK, lost_TK = of
        token_R, _ = np.nonzero(asked_TK)
        lost_R, id_R = lost_TK[asked_TK], id_T[token_R]

        def by_band(band_V, width):
            return rates(band_V[id_R] // width, lost_R, BANDS // width)

        half = BANDS // 2
        dealt = (generator.permutation(band_V) for _ in range(self.draws))
        null = [ends(by_band(other_V, half)) for other_V in dealt]
        detail = {"rate": by_band(band_V, 1)}
        return reading("dropped_rare", ends(by_band(band_V, half)), null, detail)

    def _loss(self, loss_T, lost_T, stratum_T, generator):
        if not len(loss_T):
            return Reading("loss_of_dropped", None)
        orders = (chance.within(stratum_T, generator) for _ in range(self.draws))
        null = [matched_gap(loss_T, lost_T[order], stratum_T) for order in orders]
        return reading("loss_of_dropped", matched_gap(loss_T, lost_T, stratum_T), null)
