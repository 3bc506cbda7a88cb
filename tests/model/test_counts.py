"""What a layer says of loads and drops: what tokens asked for, whoever did not serve it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe.dispatch.einsum import Einsum
from moe.dispatch.gather import Gather
from moe.dispatch.ragged import Ragged
from moe.experts.feed_forward import ReLU
from moe.experts.null import NullExperts
from moe.model.depth import in_depth_order
from moe.model.layer import MoE
from moe.routers.batch_priority import BatchPriority
from moe.routers.expert_choice import ExpertChoice
from moe.routers.relu import ReLURouter
from moe.routers.soft import Soft
from moe.routers.top_k import TopK

B, L, D, E = 2, 4, 4, 4
# Logits are x w = x: all tokens like expert 0 best, then 1, 2 and 3, some more than others.
X_BLD = (1 + np.arange(8, dtype=np.float32).reshape(B, L, 1)) * np.float32([4, 3, 2, 1])


@functools.cache
def counted(router, dispatch=Ragged(), null=None):  # noqa: B008
    """What the layer reports of eight tokens: load, drops of each token, tokens unserved."""
    layer = MoE(E, router, dispatch, ReLU(4), null=null)
    if null is not None:
        layer = MoE(E - null.count, router, dispatch, ReLU(4), null=null)
    params = layer.init(jax.random.key(0), D, 1)
    if "w_DE" in params["router"]:
        params["router"]["w_DE"] = jnp.eye(D)
    aux = jax.jit(layer)(params, X_BLD)[1]
    whole = in_depth_order((jax.tree.map(lambda a: a[None], aux),))
    return [np.asarray(a[0]) for a in (whole.load_NE, whole.dropped_NBL, whole.unserved_NBL)]


@pytest.mark.parametrize("dispatch", [Ragged(), Einsum(9.0), Gather(9.0)])
def test_batch_priority_tells_what_was_asked_and_dropped(dispatch):
    # k = 1 at factor 0.5: ceil(0.5 * 8 / 4) = 1 slot, for the surest token, which is the last.
    load_E, dropped_BL, unserved_BL = counted(BatchPriority(k=1, capacity_factor=0.5), dispatch)
    np.testing.assert_array_equal(load_E, [8, 0, 0, 0])
    np.testing.assert_array_equal(dropped_BL, [[1, 1, 1, 1], [1, 1, 1, 0]])
    np.testing.assert_array_equal(unserved_BL, dropped_BL)
    # k = 2: ceil(0.5 * 8 * 2 / 4) = 2 slots of experts 0 and 1 each: 4 of 16 are served.
    load_E, dropped_BL, unserved_BL = counted(BatchPriority(k=2, capacity_factor=0.5), dispatch)
    np.testing.assert_array_equal(load_E, [8, 8, 0, 0])
    assert dropped_BL.sum() == 12 and unserved_BL.sum() == 6


def test_a_dispatcher_drops_what_it_has_no_slot_for():
    # Factor 1: 2 slots of each expert for the first two tokens, in every dispatcher with slots.
    for dispatch in (Einsum(1.0, 0), Gather(1.0)):
        load_E, dropped_BL, unserved_BL = counted(TopK(k=1), dispatch)
        np.testing.assert_array_equal(load_E, [8, 0, 0, 0])
        np.testing.assert_array_equal(dropped_BL, [[0, 0, 1, 1], [1, 1, 1, 1]])
        np.testing.assert_array_equal(unserved_BL, dropped_BL)
    # Groups of four tokens: ceil(4 / 4) = 1 slot for the first token of each.
    _, dropped_BL, _ = counted(TopK(k=1), Einsum(1.0, 4))
    np.testing.assert_array_equal(dropped_BL, [[0, 1, 1, 1]] * 2)


def test_tokens_that_no_expert_picks_are_unserved_and_nothing_is_dropped():
    # Softmax of t (4, 3, 2, 1): experts 0's best is the last token, that of the others the first.
    load_E, dropped_BL, unserved_BL = counted(ExpertChoice(capacity_factor=0.5))
    np.testing.assert_array_equal(load_E, [1, 1, 1, 1])
    assert dropped_BL.sum() == 0
    np.testing.assert_array_equal(unserved_BL, [[0, 1, 1, 1], [1, 1, 1, 0]])


def test_open_gates_beyond_the_most_are_dropped():
    # All four gates are open; one is used.
    load_E, dropped_BL, unserved_BL = counted(ReLURouter(k=1, most=1))
    np.testing.assert_array_equal(load_E, [8, 8, 8, 8])
    np.testing.assert_array_equal(dropped_BL, np.full((B, L), 3))
    assert unserved_BL.sum() == 0
    assert counted(ReLURouter(k=1))[1].sum() == 0


def test_null_experts_drop_nothing_and_soft_mixtures_neither():
    # Expert 0 is a network with ceil(8 / 1) slots at factor 1, the others are null.
    null = NullExperts(zero=1, copy=1, constant=1)
    load_E, dropped_BL, unserved_BL = counted(TopK(k=2), Einsum(0.25, 0), null)
    np.testing.assert_array_equal(load_E, [8, 8, 0, 0])
    # ceil(0.25 * 8 * 2 / 1) = 4 of the 8 first choices; the second ones are null and served.
    np.testing.assert_array_equal(dropped_BL, [[0, 0, 0, 0], [1, 1, 1, 1]])
    assert unserved_BL.sum() == 0
    load_E, dropped_BL, unserved_BL = counted(Soft(slots=2))
    np.testing.assert_allclose(load_E, [2, 2, 2, 2], rtol=1e-6)  # all slots, one mixture each
    assert dropped_BL.sum() == unserved_BL.sum() == 0
