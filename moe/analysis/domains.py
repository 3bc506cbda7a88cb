"""Domain specialisation: which share of a domain's tokens an expert reads (OLMoE, 2409.02060)."""

from dataclasses import dataclass

import numpy as np

from moe.analysis import chance
from moe.analysis.contract import Reading, absent, reading
from moe.analysis.trace import LayerTrace, Trace


def shares(desk_T: np.ndarray, expert_TK: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """n_e,D / N_D [desks, E]: the share of a desk's tokens that chose an expert, at any rank.

    Rows sum to the choices of a token; a desk without tokens has NaN.
    """
    desks, E = shape
    token_R, rank_R = np.nonzero((expert_TK < E) & (desk_T >= 0)[:, None])
    count = chance.table(desk_T[token_R], expert_TK[token_R, rank_R], shape)
    tokens = np.bincount(desk_T[desk_T >= 0], minlength=desks)
    return count / np.where(tokens > 0, tokens, np.nan)[:, None]


@dataclass(frozen=True)
class Domains:
    """Readings: domain_top, the share of the expert that reads most of a desk, mean over desks;
    domain_top_expert, the same of the most specialised desk."""

    draws: int = chance.DRAWS

    def __call__(
        self, trace: Trace, layer: LayerTrace, generator: np.random.Generator
    ) -> list[Reading]:
        """In (0, 1]; the null deals the desks anew among documents. Details: the whole table."""
        desks, E = int(trace.desk_T.max()) + 1, layer.num_experts
        if desks < 1 or not (layer.expert_TK < E).any():
            return absent("domain_top", "domain_top_expert")

        def tops(desk_T):
            table = shares(desk_T, layer.expert_TK, (desks, E))
            top_D = table.max(axis=1)[np.isfinite(table[:, 0])]
            return top_D.mean(), top_D.max()

        null = np.array(
            [
                tops(chance.by_unit(trace.desk_T, trace.document_T, generator))
                for _ in range(self.draws)
            ]
        )
        mean, most = tops(trace.desk_T)
        table = shares(trace.desk_T, layer.expert_TK, (desks, E))
        names = list(trace.about.desks[:desks])
        detail = {"share": dict(zip(names, table, strict=True)) if len(names) == desks else table}
        return [
            reading("domain_top", mean, null[:, 0], detail),
            reading("domain_top_expert", most, null[:, 1]),
        ]
