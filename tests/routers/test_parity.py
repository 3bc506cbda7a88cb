"""Routers and losses against those of Hugging Face transformers, as tests/golden has them.

The same weights and tokens went through both. Compared are the weight of every expert in every
token, so the order of the choices does not matter.
"""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe.convert import conventions
from moe.dispatch.einsum import Einsum
from moe.routers.parts.losses import Losses
from moe.routers.published import DEEPSEEK_V2, DEEPSEEK_V3, MIXTRAL, OLMOE, QWEN3, SWITCH
from moe.routers.top_k import TopK

with np.load(pathlib.Path(__file__).parents[1] / "golden/parity.npz") as _stored:
    GOLDEN = dict(_stored)
SEEDS, T, D = GOLDEN["x_TD"].shape
E, K = GOLDEN["w_DE"].shape[-1], GOLDEN["mixtral/gate_TK"].shape[-1]
each_seed = pytest.mark.parametrize("seed", range(SEEDS))


def ours(router, seed):
    """Our routing without noise."""
    params = router.init(jax.random.key(0), D, E, 1)
    params["w_DE"] = jnp.asarray(GOLDEN["w_DE"][seed])
    if "bias_E" in params.get("state", {}):
        params["state"]["bias_E"] = jnp.asarray(GOLDEN["bias_E"][seed])
    x_TD = jnp.asarray(GOLDEN["x_TD"][seed])
    return router(params, x_TD, jnp.zeros(T, jnp.int32), E, None)


def assert_equal_plans(plan, gate_TK, expert_TK):
    """The same experts for every token, with the same gates."""
    np.testing.assert_array_equal(np.sort(plan.expert_TK), np.sort(expert_TK))
    weight_TE = np.zeros((T, E), np.float32)
    np.put_along_axis(weight_TE, expert_TK.astype(int), gate_TK, axis=1)
    np.testing.assert_allclose(plan.weight_TE(T, E), weight_TE, rtol=1e-5, atol=1e-6)


ONE = {"groups": 1, "groups_kept": 1}
GROUPS = {"groups": 4, "groups_kept": 2}
OURS = {
    "mixtral": (MIXTRAL, {}),
    "olmoe": (OLMOE, {}),
    "olmoe renormalised": (OLMOE, {"renormalize": True}),
    "qwen3": (QWEN3, {}),
    "qwen3 not renormalised": (QWEN3, {"renormalize": False}),
    "deepseek_v2": (DEEPSEEK_V2, GROUPS),
    "deepseek_v2 greedy": (DEEPSEEK_V2, {**ONE, "scale": 1.0}),
    "deepseek_v3": (DEEPSEEK_V3, GROUPS),
    "deepseek_v3 one group": (DEEPSEEK_V3, ONE),
    "deepseek_v3 not renormalised": (DEEPSEEK_V3, {**GROUPS, "renormalize": False}),
    "deepseek_v3 one group, not renormalised": (DEEPSEEK_V3, {**ONE, "renormalize": False}),
}


def test_every_golden_router_is_compared():
    stored = {name.split("/")[0] for name in GOLDEN if name.endswith("/gate_TK")}
    assert stored == set(OURS)


@each_seed
@pytest.mark.parametrize("name", OURS)
def test_routers(name, seed):
    preset, fields = OURS[name]
    gate_TK, expert_TK = (GOLDEN[f"{name}/{part}"][seed] for part in ("gate_TK", "expert_TK"))
    router = dataclasses.replace(preset, k=K, **fields)
    assert_equal_plans(ours(router, seed).plan, gate_TK, expert_TK)


@each_seed
def test_switch(seed):
    expert_TK = GOLDEN["switch/hot_TE"][seed].argmax(axis=1)[:, None]
    assert_equal_plans(ours(SWITCH, seed).plan, GOLDEN["switch/gate_T1"][seed], expert_TK)


@each_seed
def test_switch_drops_the_same_tokens(seed):
    # C = 3 of T / E = 4: the first three tokens of an expert, in both.
    hot_TE = GOLDEN["switch with drops/hot_TE"][seed]
    masks, dropped_TK = Einsum(capacity_factor=3 / 4).masks(ours(SWITCH, seed).plan, T, E)
    np.testing.assert_array_equal(masks.dispatch_TEC.sum(axis=2), hot_TE)
    assert dropped_TK.sum() == T - hot_TE.sum() > 0


def test_pooled_load_balance():
    # Three layers of different tokens and weights; for one layer K times ours.
    layers = [ours(TopK(k=K), seed).terms for seed in range(SEEDS)]
    count_NE = jnp.stack([terms["count_TE"].sum(axis=0) for terms in layers])
    probability_NE = jnp.stack([terms["probability_TE"].sum(axis=0) for terms in layers])
    got = conventions.pooled_load_balance(count_NE, probability_NE, T)
    np.testing.assert_allclose(got, GOLDEN["pooled"], rtol=1e-5)
    weight = conventions.load_balance_weight("huggingface", 1.0, E, K, 1)
    for terms, want in zip(layers, GOLDEN["single"], strict=True):
        sums = jax.tree.map(lambda a: a.sum(axis=0), terms)
        found = Losses(load_balance=weight)(sums, T)[0]["load_balance"]
        np.testing.assert_allclose(found, want, rtol=1e-5)


@each_seed
def test_switch_losses(seed):
    # Hugging Face forms both per sequence and averages: here two sequences of T / 2 tokens.
    losses = Losses(load_balance=1.0, z_loss=1.0, scope="sequence")
    terms = ours(dataclasses.replace(SWITCH, losses=losses), seed).terms
    halves = jax.tree.map(lambda a: a.reshape(2, T // 2, *a.shape[1:]).sum(axis=1), terms)
    parts = [losses(jax.tree.map(lambda a, b=b: a[b], halves), T // 2)[0] for b in range(2)]
    for name in ("load_balance", "z_loss"):
        got = sum(float(part[name]) for part in parts) / 2
        np.testing.assert_allclose(got, GOLDEN[f"switch {name}"][seed], rtol=1e-5)


@pytest.mark.slow  # importing torch takes seconds
def test_the_golden_arrays_are_what_transformers_gives():
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from tests.golden import parity

    for name, array in parity.arrays().items():
        np.testing.assert_allclose(GOLDEN[name], array, rtol=1e-5, atol=1e-6, err_msg=name)
