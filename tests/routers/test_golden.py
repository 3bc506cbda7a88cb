"""Six tokens and four experts whose values other libraries computed.

Produced with transformers 5.23.0, megatron-core 0.16.1, deepspeed 0.19.8 and mixture_of_experts
0.2.3 on torch 2.13 (CPU, float32), and printed with 6 digits. The logits have no ties.

Rows of that set which have no counterpart here, and why:
- DeepSpeed top-1 with C = 2: keeps the last tokens, the tie order of a top-k over a 0/1 mask.
- DeepSpeed top-k "probs" and Megatron "probs" with C = 3: an expert keeps its most probable
  tokens; the dispatcher here keeps the first, and no router ranks tokens per expert.
- DeepSpeed top-k "position" with C = 3: counts slots token by token; here all first choices come
  before all second ones.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe.analysis.load import max_violation
from moe.convert import conventions
from moe.dispatch.einsum import Einsum
from moe.experts.feed_forward import ReLU
from moe.model.layer import MoE
from moe.plan import capacity
from moe.routers.loss_free import LossFree
from moe.routers.parts import losses
from moe.routers.parts.losses import Losses
from moe.routers.parts.scores import Sigmoid
from moe.routers.sinkhorn import Sinkhorn
from moe.routers.top_k import TopK

T, E, K = 6, 4, 2
LOGITS_TE = jnp.array(
    [
        [2, 1, 0, -1],
        [1.5, 1.2, -0.3, 0.1],
        [0.4, 2.2, 1.1, -0.6],
        [1.8, 0.2, 0.9, 0.5],
        [0.1, 1.6, -0.4, 1.3],
        [2.4, 0.7, 0.6, -0.2],
    ]
)
ID_T = jnp.zeros(T, jnp.int32)
COUNT_E = [4, 5, 2, 1]  # e0: t0 t1 t3 t5; e1: t0 t1 t2 t4 t5; e2: t2 t3; e3: t4
P_E = [0.425917, 0.322432, 0.129048, 0.122603]
BIAS_E = [-0.3, 0, 0.1, 0.05]
BOTH = Losses(load_balance=1.0, z_loss=1.0)


def close(got, want):
    """Equal to the 6 digits that were printed."""
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


def route(router, logits_TE=LOGITS_TE, state=None, rng=None):
    """Routes tokens that are their own logits: x = logits and w = 1."""
    params = {"w_DE": jnp.eye(E)} | ({"state": state} if state else {})
    return router(params, logits_TE, ID_T[: logits_TE.shape[0]], E, rng)


def summed(routing):
    """The terms of the losses over all tokens."""
    return jax.tree.map(lambda a: a.sum(axis=0), routing.terms)


def loss(router, name, logits_TE=LOGITS_TE):
    """One loss over all tokens."""
    sums = summed(route(router, logits_TE))
    return router.losses(sums, logits_TE.shape[0])[0][name]


def biased(**fields):
    """A loss-free router with the bias set, and its state."""
    state = {"bias_E": jnp.array(BIAS_E), "step": jnp.zeros((), jnp.int32)}
    return LossFree(k=K, scale=2.5, renormalize=True, **fields), state


def weights_from(rows):
    """weight_TE from one {expert: weight} for each token."""
    weight_TE = np.zeros((T, E))
    for t, row in enumerate(rows):
        for e, weight in row.items():
            weight_TE[t, e] = weight
    return weight_TE


def test_choices_counts_and_probabilities():
    routing = route(TopK(k=K))
    want_TK = [[0, 1], [0, 1], [1, 2], [0, 2], [1, 3], [0, 1]]
    np.testing.assert_array_equal(routing.plan.expert_TK, want_TK)
    np.testing.assert_array_equal(routing.terms["count_TE"].sum(axis=0), COUNT_E)
    close(routing.terms["probability_TE"].mean(axis=0), P_E)


@pytest.mark.parametrize("order", ["score_first", "choose_first"])
def test_mixtral_weights(order):
    # t0: e^2 / (e^2 + e^1) = 1 / (1 + e^-1) = .731059, in either order.
    want_TK = [
        [0.731059, 0.268941],
        [0.574443, 0.425557],
        [0.750260, 0.249740],
        [0.710949, 0.289050],
        [0.574443, 0.425557],
        [0.845535, 0.154465],
    ]
    close(route(TopK(k=K, order=order)).plan.gate_TK, want_TK)


def test_olmoe_weights():
    # t0: e^2 / (e^2 + e + 1 + e^-1) = 7.389056 / 11.475217 = .643914.
    want_TK = [
        [0.643914, 0.236883],
        [0.464530, 0.344132],
        [0.641445, 0.213518],
        [0.531633, 0.216146],
        [0.476353, 0.352891],
        [0.703108, 0.128446],
    ]
    close(route(TopK(k=K, renormalize=False)).plan.gate_TK, want_TK)


def test_sigmoid_with_bias():
    # t0: s = .880797 .731059 .5 .268941, s + b = .580797 .731059 .6 .318941: experts 1 and 2.
    # 2.5 * .731059 / (.731059 + .5) = 1.484614: the bias chooses and does not weigh.
    router, state = biased()
    plan = route(router, state=state).plan
    want_TK = [[1, 2], [1, 3], [1, 2], [2, 3], [3, 1], [2, 1]]
    np.testing.assert_array_equal(np.sort(plan.expert_TK), np.sort(want_TK))
    rows = [
        {1: 1.484614, 2: 1.015386},
        {1: 1.485355, 3: 1.014645},
        {1: 1.363593, 2: 1.136407},
        {2: 1.332955, 3: 1.167045},
        {3: 1.214317, 1: 1.285683},
        {2: 1.228564, 1: 1.271437},
    ]
    close(plan.weight_TE(T, E), weights_from(rows))


def test_sigmoid_with_bias_in_groups():
    # Groups {0, 1} and {2, 3} of 2 experts: the sum of the best two of s + b is that of the group.
    # t0: .580797 + .731059 > .6 + .318941; 2.5 * .880797 / (.880797 + .731059) = 1.366123.
    router, state = biased(groups=2, groups_kept=1, group_score="top2_sum")
    rows = [
        {0: 1.366123, 1: 1.133877},
        {0: 1.288656, 1: 1.211344},
        {2: 1.698030, 3: 0.801970},
        {2: 1.332955, 3: 1.167045},
        {2: 0.845119, 3: 1.654881},
        {0: 1.446086, 1: 1.053914},
    ]
    close(route(router, state=state).plan.weight_TE(T, E), weights_from(rows))


def test_load_balance_of_two_choices():
    # 4 * (4/12 * .425917 + 5/12 * .322432 + 2/12 * .129048 + 1/12 * .122603) = 1.232176,
    # Megatron's and DeepSpeed's top-k; Hugging Face has K times that.
    router = TopK(k=K, losses=BOTH)
    close(loss(router, "load_balance"), 1.232176)
    sums = summed(route(router))
    pooled = conventions.pooled_load_balance(
        sums["count_TE"][None], sums["probability_TE"][None], T
    )
    close(pooled, 2.464353)


def test_load_balance_of_one_choice():
    # First choices 0 0 1 0 1 0: 4 * (4/6 * .425917 + 2/6 * .322432) = 1.565689.
    close(loss(TopK(k=1, losses=BOTH), "load_balance"), 1.565689)


def test_load_balance_without_the_last_token():
    # Hugging Face with the last token masked: the first five tokens alone, K times our value.
    close(K * loss(TopK(k=K, losses=BOTH), "load_balance", LOGITS_TE[:5]), 2.365007)


def test_pooled_loss_of_opposite_layers_is_that_of_balance():
    layers = [summed(route(TopK(k=K, losses=BOTH), sign * LOGITS_TE)) for sign in (1, -1)]
    own = [losses.load_balance(s["count_TE"], s["probability_TE"], T) for s in layers]
    np.testing.assert_allclose(own, [1.23218, 1.23223], rtol=1e-6, atol=5e-6)  # 5 digits printed
    # -L chooses the other two experts of each token: each expert is chosen 6 times in 12 places.
    count_NE, probability_NE = (
        jnp.stack([s[name] for s in layers]) for name in ("count_TE", "probability_TE")
    )
    np.testing.assert_array_equal(count_NE.sum(axis=0), [6, 6, 6, 6])
    close(conventions.pooled_load_balance(count_NE, probability_NE, T), 2.0)


def test_z_loss():
    # t0: ln(e^2 + e + 1 + e^-1) = ln 11.475217 = 2.440190, squared 5.954526; the mean of six.
    close(loss(TopK(k=K, losses=BOTH), "z_loss"), 6.175846)


def test_sequence_loss():
    # Megatron's seq_aux_loss: two sequences of three tokens, P from s / sum s.
    router = TopK(k=K, score=Sigmoid(), losses=Losses(1.0, 0.0, scope="sequence"))
    close(loss(router, "load_balance", LOGITS_TE[:3]), 1.195072)
    close(loss(router, "load_balance", LOGITS_TE[3:]), 1.030716)
    layer = MoE(num_experts=E, router=router, dispatch=Einsum(group_size=0), experts=ReLU(4))
    params = layer.init(jax.random.key(0), E, 8) | {"router": {"w_DE": jnp.eye(E)}}
    aux = layer(params, LOGITS_TE.reshape(2, 3, E))[1]
    close(aux.losses["load_balance"], 1.112894)  # (1.195072 + 1.030716) / 2


def test_sequence_loss_counts_choices_without_the_bias():
    # The bias moves the choices and leaves the loss as it is (arXiv 2412.19437 eq. 17-20).
    router, state = biased(losses=Losses(1.0, 0.0, scope="sequence"))
    sums = summed(route(router, LOGITS_TE[:3], state))
    close(router.losses(sums, 3)[0]["load_balance"], 1.195072)


def test_spread_of_the_load():
    # Mean 3: 5/3 - 1 = .666667; squared deviations 1 4 1 4, sqrt(10/4) / 3 = .527046.
    close(max_violation(np.array(COUNT_E)), 0.666667)
    close(jnp.sqrt(losses.cv_squared(jnp.array(COUNT_E, jnp.float32))), 0.527046)


@pytest.mark.parametrize("centred", [False, True])
def test_bias_after_one_step(centred):
    # Mean 3: experts 0 and 1 are above, 2 and 3 below; the signs sum to 0, so centring is nothing.
    router, state = biased(rate=1e-3, centred=centred)
    load_E = route(TopK(k=K)).plan.assigned_TE(T, E).sum(axis=0)
    params = router.update({"w_DE": jnp.eye(E), "state": state}, load_E, {})
    want_E = [-0.301, -0.001, 0.101, 0.051]
    np.testing.assert_allclose(params["state"]["bias_E"], want_E, rtol=0, atol=1e-7)


def test_sinkhorn():
    expert_TK = route(Sinkhorn(), rng=jax.random.key(0)).plan.expert_TK
    np.testing.assert_array_equal(expert_TK[:, 0], [0, 1, 1, 2, 3, 0])
    np.testing.assert_array_equal(route(Sinkhorn()).plan.expert_TK[:, 0], [0, 0, 1, 0, 1, 0])


def kept(C):
    """What each token gets of each expert when an expert has C slots."""
    dispatch = Einsum(capacity_factor=C * E / (T * K), group_size=0)
    assert capacity(dispatch.capacity_factor, T, K, E) == C
    masks, dropped_TK = dispatch.masks(route(TopK(k=K)).plan, T, E)
    return masks.combine_TEC.sum(axis=2), dropped_TK.sum(axis=0)


def test_drops_with_three_slots():
    # First choices: e0 t0 t1 t3, t5 is too late; e1 t2 t4. Second ones: e1 t0, t1 and t5 too late;
    # e2 t2 t3; e3 t4. DeepSpeed's top-2 keeps the same and then divides by what is left.
    weight_TE, dropped_K = kept(3)
    np.testing.assert_array_equal(dropped_K, [1, 2])
    close(weight_TE[1], [0.574443, 0, 0, 0])
    left_T = weight_TE.sum(axis=1)
    rows = [
        {0: 0.731059, 1: 0.268941},
        {0: 1.0},
        {1: 0.750260, 2: 0.249740},
        {0: 0.710949, 2: 0.289050},
        {1: 0.574443, 3: 0.425557},
        {},
    ]
    close(weight_TE / jnp.where(left_T > 0, left_T, 1)[:, None], weights_from(rows))


def test_drops_with_four_slots():
    # e1: t2 t4, then t0 t1; t5 alone is too late and its first weight stays as it was
    # (mixture_of_experts, policy "all").
    weight_TE, dropped_K = kept(4)
    np.testing.assert_array_equal(dropped_K, [0, 1])
    full_TE = route(TopK(k=K)).plan.weight_TE(T, E)
    close(weight_TE, full_TE.at[5].set(jnp.array([0.845535, 0, 0, 0])))
