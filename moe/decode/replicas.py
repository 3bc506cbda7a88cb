"""Models whose experts are held as their load asks, for inference."""

import dataclasses

import numpy as np

from moe.dispatch.placed import Placed, hold
from moe.model.depth import map_parts
from moe.model.transformer import Transformer
from moe.params import Params


def serve(model: Transformer, params: Params, expert_NP: np.ndarray) -> tuple[Transformer, Params]:
    """The model and its parameters with the experts of MoE layer n held as expert_NP[n] says.

    For inference: copies are not kept equal by training. Outputs stay what they were.
    """
    dispatch = Placed(model.sparse.dispatch, expert_NP.shape[1])
    placed = model.clone(moe=dataclasses.replace(model.sparse, dispatch=dispatch))
    return placed, map_parts(params, "experts", lambda experts, n: hold(experts, expert_NP[n]))
