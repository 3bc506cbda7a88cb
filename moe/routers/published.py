"""Published routers that are settings of others: a line each here, and one in `__init__.py`.

Coefficients are those of the papers or released configurations in our convention: 1 at balance,
averaged over layers. Where a system adds layers up, its loss is that many times as strong; see
docs/conventions.md and `moe.convert.conventions.load_balance_weight`.

Where they depart from their papers (docs/parts.md has the sizes): NOISY and V_MOE form importance
from the softmax without noise, which for NOISY is not eq. 6 of arXiv 1701.06538, the noisy gates of
the k chosen; V_MOE has the load threshold of `moe.routers.top_k.chance`. The scope of all losses
is the whole batch, where SWITCH, NOISY, V_MOE, MIXTRAL and OLMOE had those of a device or group;
DEEPSEEK_V2 and V3 keep the sequence, and QWEN3 the batch, as published.
"""

import dataclasses

from moe.routers.loss_free import LossFree
from moe.routers.parts.losses import Losses
from moe.routers.parts.noise import FixedNoise, Gumbel, Jitter, LearnedNoise
from moe.routers.parts.scores import Sigmoid
from moe.routers.top_k import TopK


def _only(**weights) -> Losses:
    return dataclasses.replace(Losses(load_balance=0.0, z_loss=0.0), **weights)


SWITCH = TopK(
    k=1,
    renormalize=False,
    noise=Jitter(0.01),
    losses=_only(load_balance=0.01),
    init_scale=0.1**0.5,
)


NOISY = TopK(
    k=4, noise=LearnedNoise(), order="choose_first", losses=_only(importance=0.1, load=0.1)
)


V_MOE = TopK(k=2, renormalize=False, noise=FixedNoise(), losses=_only(importance=0.005, load=0.005))


SAMPLED = TopK(k=1, noise=Gumbel())


MIXTRAL = TopK(k=2, losses=_only(load_balance=0.04))


OLMOE = TopK(k=8, renormalize=False, losses=_only(load_balance=0.01, z_loss=0.001))


QWEN3 = TopK(k=8, renormalize=True, losses=_only(load_balance=0.008))


DEEPSEEK_V2 = TopK(
    k=6,
    renormalize=False,
    scale=16.0,
    groups=8,
    groups_kept=3,
    losses=_only(load_balance=0.003, scope="sequence"),
)


SIGMOID = TopK(k=2, score=Sigmoid(), epsilon=1e-20)


DEEPSEEK_V3 = LossFree(
    k=8,
    renormalize=True,
    scale=2.5,
    groups=8,
    groups_kept=4,
    group_score="top2_sum",
    losses=Losses(load_balance=1e-4, z_loss=0.0, scope="sequence"),
)
