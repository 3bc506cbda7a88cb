"""Routers and losses against those of Hugging Face transformers, where torch is installed.

The same random weights and tokens go through both. Compared are the weight of every expert in
every token, so the order of the choices does not matter; random inputs have no ties.
"""

import dataclasses
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe.convert import conventions
from moe.dispatch.einsum import Einsum
from moe.routers.parts.losses import Losses
from moe.routers.published import DEEPSEEK_V2, DEEPSEEK_V3, MIXTRAL, OLMOE, QWEN3, SWITCH
from moe.routers.top_k import TopK

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

pytestmark = pytest.mark.slow  # importing torch takes seconds

E, K, D, T = 16, 4, 32, 64
GROUPS = {"groups": 4, "groups_kept": 2}
SEEDS = [0, 1, 2]
each_seed = pytest.mark.parametrize("seed", SEEDS)


def family(name):
    """The module of a model family and its configuration class."""
    modeling = importlib.import_module(f"transformers.models.{name}.modeling_{name}")
    configuration = importlib.import_module(f"transformers.models.{name}.configuration_{name}")
    return modeling, configuration


def inputs(seed):
    """x_TD, w_DE with logits of standard deviation about 1, and a bias."""
    rng = np.random.default_rng(seed)
    x_TD = rng.standard_normal((T, D)).astype(np.float32)
    w_DE = (rng.standard_normal((D, E)) / D**0.5).astype(np.float32)
    return x_TD, w_DE, (0.3 * rng.standard_normal(E)).astype(np.float32)


def ours(router, x_TD, w_DE, bias_E=None):
    """Our routing without noise."""
    params = {"w_DE": jnp.asarray(w_DE)}
    if bias_E is not None:
        params["state"] = {"bias_E": jnp.asarray(bias_E), "step": jnp.zeros((), jnp.int32)}
    return router(params, jnp.asarray(x_TD), jnp.zeros(T, jnp.int32), E, None)


def theirs(router, x_TD, w_DE, bias_E=None):
    """Logits, weights and choices of a router of transformers."""
    with torch.no_grad():
        router.weight.copy_(torch.from_numpy(w_DE.T))
        if bias_E is not None:
            router.e_score_correction_bias.copy_(torch.from_numpy(bias_E))
        found = router(torch.from_numpy(x_TD))
    return [np.asarray(value) for value in found]


def assert_equal_plans(plan, gate_TK, expert_TK):
    """The same experts for every token, with the same gates."""
    np.testing.assert_array_equal(np.sort(plan.expert_TK), np.sort(expert_TK))
    weight_TE = np.zeros((T, E), np.float32)
    np.put_along_axis(weight_TE, expert_TK, gate_TK, axis=1)
    np.testing.assert_allclose(plan.weight_TE(T, E), weight_TE, rtol=1e-5, atol=1e-6)


def mixtral():
    modeling, configuration = family("mixtral")
    config = configuration.MixtralConfig(hidden_size=D, num_local_experts=E, num_experts_per_tok=K)
    return modeling.MixtralTopKRouter(config)


def olmoe(norm=False):
    modeling, configuration = family("olmoe")
    config = configuration.OlmoeConfig(
        hidden_size=D, num_experts=E, num_experts_per_tok=K, norm_topk_prob=norm
    )
    return modeling.OlmoeTopKRouter(config)


def qwen3(norm=True):
    modeling, configuration = family("qwen3_moe")
    config = configuration.Qwen3MoeConfig(
        hidden_size=D, num_experts=E, num_experts_per_tok=K, norm_topk_prob=norm
    )
    return modeling.Qwen3MoeTopKRouter(config)


def deepseek_v2(scale, groups):
    modeling, configuration = family("deepseek_v2")
    config = configuration.DeepseekV2Config(
        hidden_size=D,
        n_routed_experts=E,
        num_experts_per_tok=K,
        routed_scaling_factor=scale,
        topk_method="group_limited_greedy" if groups > 1 else "greedy",
        n_group=groups,
        topk_group=min(groups, 2),
    )
    return modeling.DeepseekV2TopkRouter(config)


def deepseek_v3(norm, groups):
    modeling, configuration = family("deepseek_v3")
    config = configuration.DeepseekV3Config(
        hidden_size=D,
        n_routed_experts=E,
        num_experts_per_tok=K,
        routed_scaling_factor=2.5,
        norm_topk_prob=norm,
        n_group=groups,
        topk_group=min(groups, 2),
    )
    return modeling.DeepseekV3TopkRouter(config)


def switch(capacity):
    modeling, configuration = family("switch_transformers")
    config = configuration.SwitchTransformersConfig(
        d_model=D, num_experts=E, expert_capacity=capacity, router_jitter_noise=0.01
    )
    return modeling.SwitchTransformersTop1Router(config).eval()


def choices_of_switch(x_TD, w_DE, capacity):
    """One-hot rows of the experts that serve each token, zero where it was dropped; gates."""
    router = switch(capacity)
    with torch.no_grad():
        router.classifier.weight.copy_(torch.from_numpy(w_DE.T))
        hot_TE, gate_T1, _ = (value[0] for value in router(torch.from_numpy(x_TD)[None]))
    return np.asarray(hot_TE), np.asarray(gate_T1)


PAIRS = {
    "mixtral": (MIXTRAL, mixtral),
    "olmoe": (OLMOE, olmoe),
    "olmoe renormalised": (dataclasses.replace(OLMOE, renormalize=True), lambda: olmoe(True)),
    "qwen3": (QWEN3, qwen3),
    "qwen3 not renormalised": (
        dataclasses.replace(QWEN3, renormalize=False),
        lambda: qwen3(False),
    ),
    "deepseek_v2": (dataclasses.replace(DEEPSEEK_V2, **GROUPS), lambda: deepseek_v2(16.0, 4)),
    "deepseek_v2 greedy": (
        dataclasses.replace(DEEPSEEK_V2, groups=1, groups_kept=1, scale=1.0),
        lambda: deepseek_v2(1.0, 1),
    ),
}


@each_seed
@pytest.mark.parametrize("name", PAIRS)
def test_softmax_routers(name, seed):
    preset, make = PAIRS[name]
    x_TD, w_DE, _ = inputs(seed)
    _, gate_TK, expert_TK = theirs(make(), x_TD, w_DE)
    router = dataclasses.replace(preset, k=K)
    assert_equal_plans(ours(router, x_TD, w_DE).plan, gate_TK, expert_TK)


@each_seed
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("groups", [1, 4])
def test_deepseek_v3(groups, norm, seed):
    x_TD, w_DE, bias_E = inputs(seed)
    _, gate_TK, expert_TK = theirs(deepseek_v3(norm, groups), x_TD, w_DE, bias_E)
    router = dataclasses.replace(
        DEEPSEEK_V3, k=K, renormalize=norm, groups=groups, groups_kept=min(groups, 2)
    )
    assert_equal_plans(ours(router, x_TD, w_DE, bias_E).plan, gate_TK, expert_TK)


@each_seed
def test_switch(seed):
    x_TD, w_DE, _ = inputs(seed)
    hot_TE, gate_T1 = choices_of_switch(x_TD, w_DE, capacity=T)
    expert_TK = hot_TE.argmax(axis=1)[:, None]
    assert_equal_plans(ours(SWITCH, x_TD, w_DE).plan, gate_T1, expert_TK)


@each_seed
def test_switch_drops_the_same_tokens(seed):
    # C = 3 of T / E = 4: the first three tokens of an expert, in both.
    x_TD, w_DE, _ = inputs(seed)
    hot_TE, _ = choices_of_switch(x_TD, w_DE, capacity=3)
    masks, dropped_TK = Einsum(capacity_factor=3 / 4).masks(ours(SWITCH, x_TD, w_DE).plan, T, E)
    np.testing.assert_array_equal(masks.dispatch_TEC.sum(axis=2), hot_TE)
    assert dropped_TK.sum() == T - hot_TE.sum() > 0


@each_seed
@pytest.mark.parametrize("name", ["mixtral", "olmoe", "qwen3_moe"])
def test_pooled_load_balance(name, seed):
    # Three layers of different weights; for one layer K times ours.
    modeling = family(name)[0]
    router = TopK(k=K)
    layers = [ours(router, *inputs(3 * seed + n)[:2]).terms for n in range(3)]
    logits = tuple(torch.from_numpy(np.matmul(*inputs(3 * seed + n)[:2])) for n in range(3))
    count_NE = jnp.stack([terms["count_TE"].sum(axis=0) for terms in layers])
    probability_NE = jnp.stack([terms["probability_TE"].sum(axis=0) for terms in layers])
    want = modeling.load_balancing_loss_func(logits, E, K).item()
    got = conventions.pooled_load_balance(count_NE, probability_NE, T)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    one = modeling.load_balancing_loss_func(logits[:1], E, K).item()
    sums = jax.tree.map(lambda a: a.sum(axis=0), layers[0])
    weight = conventions.load_balance_weight("huggingface", 1.0, E, K, 1)
    found = Losses(load_balance=weight)(sums, T)[0]["load_balance"]
    np.testing.assert_allclose(found, one, rtol=1e-5)


@each_seed
def test_switch_losses(seed):
    # Hugging Face forms both per sequence and averages: here two sequences of T / 2 tokens.
    modeling = family("switch_transformers")[0]
    x_TD, w_DE, _ = inputs(seed)
    losses = Losses(load_balance=1.0, z_loss=1.0, scope="sequence")
    terms = ours(dataclasses.replace(SWITCH, losses=losses), x_TD, w_DE).terms
    halves = jax.tree.map(lambda a: a.reshape(2, T // 2, *a.shape[1:]).sum(axis=1), terms)
    parts = [losses(jax.tree.map(lambda a, b=b: a[b], halves), T // 2)[0] for b in range(2)]
    logits = torch.from_numpy((x_TD @ w_DE).reshape(2, T // 2, E))
    balance = modeling.load_balancing_loss_func(logits.softmax(-1), logits.argmax(-1)).item()
    z_loss = modeling.router_z_loss_func(logits).item()
    got = {name: sum(float(part[name]) for part in parts) / 2 for name in parts[0]}
    np.testing.assert_allclose(got["load_balance"], balance, rtol=1e-5)
    np.testing.assert_allclose(got["z_loss"], z_loss, rtol=1e-5)
