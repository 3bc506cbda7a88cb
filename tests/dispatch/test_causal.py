"""Whether later tokens decide what is dropped of earlier ones: declared, and measured."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe.data.data import Data
from moe.devices import mesh
from moe.devices.mesh import Mesh
from moe.dispatch import parallel
from moe.dispatch.all_to_all import AllToAll
from moe.dispatch.auto import Auto
from moe.dispatch.einsum import Einsum
from moe.dispatch.gather import Gather
from moe.dispatch.oracle import Oracle
from moe.dispatch.overflow import Exact
from moe.dispatch.ragged import Ragged
from moe.dispatch.ragged_all_to_all import RaggedAllToAll
from moe.experiment import Experiment, Train
from moe.experts.contract import Pool
from moe.experts.feed_forward import ReLU
from moe.model.layer import MoE
from moe.model.transformer import Transformer
from moe.order import TokenMajor, slot_rows
from moe.plan import Choices
from moe.routers.batch_priority import BatchPriority
from moe.routers.dense import Dense
from moe.routers.hash import Hash
from moe.routers.relu import ReLURouter
from moe.routers.sinkhorn import Sinkhorn
from moe.routers.top_k import TopK
from tests.contracts.dispatch import mesh_of
from tests.contracts.order import with_another_end

B, L, D, E, DEVICES = 8, 8, 4, 4, 2
EXPERTS = ReLU(3)
TOKENS = TokenMajor()


def drawn(seed, K):
    """x_BLD and the first K choices of every token."""
    keys = jax.random.split(jax.random.key(seed))
    order = jnp.argsort(jax.random.uniform(keys[1], (B, L, E)), axis=-1).astype(jnp.int32)
    return jax.random.normal(keys[0], (B, L, D)), order[..., :K]


def first_halves_stay(dispatch, K, devices):
    """Whether another second half of any one sequence leaves the outputs of its first one alone.

    Later sequences may change: they come after it where they compete.
    """
    pool = Pool(EXPERTS.init(jax.random.key(0), E, D), EXPERTS, E)
    groups = dispatch.groups(B * L)
    lead = (B * L,) if groups == 1 else (groups, B * L // groups)

    @jax.jit
    def run(x_BLD, expert_BLK, pool):
        plan = Choices(expert_BLK.reshape(*lead, K), jnp.full((*lead, K), 1 / K))
        y, _ = parallel.serve(dispatch, plan, x_BLD.reshape(*lead, D), pool, groups)
        return y.reshape(B, L, D)

    moved = []
    with jax.set_mesh(mesh_of(1, devices)) if devices > 1 else contextlib.nullcontext():
        for one, other in ((drawn(seed, K), drawn(seed + 1, K)) for seed in (0, 2, 4)):
            before = run(*one, pool)
            for b in range(B):
                after = run(*with_another_end(one, other, b), pool)
                moved.append(~np.isclose(before[b], after[b], atol=1e-6).all(axis=-1))
    assert np.any(moved)  # what was changed itself
    return not np.any(np.stack(moved)[:, : L // 2])


CASES = {  # dispatcher: on how many devices, declared causal at k = 1 and k = 2
    Einsum(1.0, group_size=0): (1, True, False),
    Einsum(1.0, group_size=L): (1, True, False),
    Einsum(1.0, 0, TOKENS): (1, True, True),
    Einsum(1.0, 2 * L, TOKENS): (1, True, True),
    Einsum(2.0, group_size=0): (1, True, True),  # 2 T k / E slots are T at k = 2
    Gather(1.0): (1, True, False),
    Gather(1.0, priority=TOKENS): (1, True, True),
    Gather(0.5, Exact()): (1, True, True),
    Ragged(): (1, True, True),
    AllToAll(0.5): (1, True, True),  # one device has room for all
    AllToAll(0.75): (DEVICES, True, False),
    AllToAll(0.75, priority=TOKENS): (DEVICES, True, True),
    AllToAll(0.75, Exact()): (DEVICES, True, True),
    AllToAll(float(DEVICES)): (DEVICES, True, True),
    RaggedAllToAll(0.8): (DEVICES, False, False),
    RaggedAllToAll(0.75, Exact()): (DEVICES, True, True),
    RaggedAllToAll(float(DEVICES)): (DEVICES, True, True),
    Auto(): (DEVICES, True, True),
    Oracle(): (1, True, True),
}
FAST = [Einsum(1.0, 0), Einsum(1.0, 0, TOKENS), Gather(1.0), Gather(1.0, priority=TOKENS)]
FAST += [AllToAll(0.75), AllToAll(0.75, priority=TOKENS), RaggedAllToAll(0.8)]


def each():
    for dispatch, (devices, *declared) in CASES.items():
        for K, causal in zip((1, 2), declared, strict=True):
            fast = dispatch in FAST and (K == 2 or devices > 1)
            yield pytest.param(
                dispatch,
                devices,
                K,
                causal,
                marks=() if fast else pytest.mark.slow,
                id=f"{dispatch} {K}",
            )


@pytest.mark.multi_device
@pytest.mark.parametrize(("dispatch", "devices", "K", "causal"), list(each()))
def test_what_a_dispatcher_declares_is_measured(dispatch, devices, K, causal):
    group = B * L // dispatch.groups(B * L)
    assert dispatch.causal(K, group, E, devices) == causal
    assert first_halves_stay(dispatch, K, devices) == causal


def test_slots_by_token_and_by_choice():
    # One slot each. Token 0 wants experts 0 and 1, token 1 wants 1 and 0. First choices first:
    # each has its own. Tokens in order: token 0 has both.
    plan = Choices(jnp.array([[0, 1], [1, 0]]), jnp.ones((2, 2)))
    np.testing.assert_array_equal(slot_rows(plan, 2, 1), [[0, 2], [1, 2]])
    np.testing.assert_array_equal(slot_rows(plan, 2, 1, TOKENS), [[0, 1], [2, 2]])
    for priority, want in ((None, [[0, 1], [0, 1]]), (TOKENS, [[0, 0], [1, 1]])):
        dispatch = Einsum(0.5) if priority is None else Einsum(0.5, priority=priority)
        np.testing.assert_array_equal(dispatch.masks(plan, 2, 2)[1], want)  # ceil(0.5 * 2) = 1 slot


TIGHT, ROOMY = Einsum(1.0, 0), Einsum(4.0, 0)
LAYERS = [  # router, dispatcher, factor at evaluation: causal at evaluation, in training
    (TopK(k=1), TIGHT, None, True, True),
    (TopK(k=2), TIGHT, None, False, False),
    (TopK(k=2), Einsum(1.0, 0, TOKENS), None, True, True),
    (TopK(k=2), ROOMY, None, True, True),
    (TopK(k=2), TIGHT, 4.0, True, False),
    (TopK(k=2), ROOMY, 1.0, False, True),
    (Hash(k=2), TIGHT, None, False, False),
    (Dense(), TIGHT, None, True, True),  # an expert stands in one column alone
    (ReLURouter(), Einsum(0.5, 0), None, True, True),
    (ReLURouter(most=2), TIGHT, None, False, False),
    (Sinkhorn(), TIGHT, None, True, False),
    (BatchPriority(), Ragged(), None, False, False),
]


@pytest.mark.parametrize(("router", "dispatch", "factor", "causal", "in_training"), LAYERS)
def test_causality_belongs_to_router_dispatcher_and_k(
    router, dispatch, factor, causal, in_training
):
    """Over budget: a row of the table above."""
    layer = MoE(E, router, dispatch, EXPERTS, eval_capacity_factor=factor)
    assert layer.causal(B * L) == causal and layer.causal_in_training(B * L) == in_training
    model = Transformer(vocab_size=257, num_layers=2, model_width=8, moe=layer, moe_layers=(1,))
    assert model.causal(B * L) == causal and model.causal_in_training(B * L) == in_training
    run = Experiment(model, Data("bytes", sequence_length=L), train=Train(batch=B))
    dataclasses.replace(run, allow_noncausal=True).validate()
    if causal:
        run.validate()
    else:
        with pytest.raises(ValueError, match="^model.moe.*so the loss of a language model is"):
            run.validate()


def test_a_mesh_without_room_is_refused_in_one_line():
    model = Transformer(num_layers=1, moe=MoE(8, TopK(k=2), AllToAll(2.0)), moe_layers=(0,))
    run = Experiment(model, train=Train(batch=8)).validate()
    assert mesh.obstacle(Mesh(expert=2), run) is None  # room for all: 2.0 times the even share
    assert mesh.obstacle(Mesh(expert=4), run) == (
        "model.moe.dispatch=AllToAll: a later token can take an earlier one's place with experts "
        "on 4 devices, so the loss of a language model is too low; take "
        "model.moe.dispatch.priority=token_major where there is one, what drops nothing (ragged, "
        "auto, overflow=exact) or set allow_noncausal=true"
    )
    moe = dataclasses.replace(model.moe, dispatch=AllToAll(2.0, priority=TOKENS))
    run = dataclasses.replace(run, model=model.clone(moe=moe))
    assert mesh.obstacle(Mesh(expert=4), run) is None


@pytest.mark.parametrize("router", [TopK(k=1), BatchPriority(k=1, capacity_factor=1.0)])
def test_capacity_at_evaluation_is_a_field(router):
    # All 64 tokens want expert 0, which has 64 / 4 = 16 slots in training and 32 at factor 2.
    dispatch = Ragged() if isinstance(router, BatchPriority) else TIGHT
    layer = MoE(E, router, dispatch, EXPERTS, eval_capacity_factor=2.0)
    params = layer.init(jax.random.key(0), D, 1)
    params["router"]["w_DE"] = jnp.eye(D)
    x_BLD = jnp.broadcast_to(jnp.array([4.0, 3, 2, 1]), (B, L, D))
    run = jax.jit(layer)
    assert float(run(params, x_BLD, None, jax.random.key(1))[1].dropped_BL.sum()) == 48
    assert float(run(params, x_BLD)[1].dropped_BL.sum()) == 32


def test_a_capacity_for_what_has_none_is_refused():
    layer = MoE(E, TopK(), Ragged(), eval_capacity_factor=2.0)
    with pytest.raises(ValueError, match="^m.eval_capacity_factor=2.0: must be none where"):
        layer.check("m", 64)
    dataclasses.replace(layer, dispatch=TIGHT).check("m", 64)
