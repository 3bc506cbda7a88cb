"""What the routers and losses of Hugging Face transformers give, as arrays: parity.npz beside this.

Remake it with `pip install torch==2.13.0 transformers==5.24.0 numpy` and
`python tests/golden/parity.py`; the versions that made it stand in it. tests/routers/test_parity.py
compares ours with it, and needs neither. Random inputs have no ties.
"""

import importlib
import json
import platform
from pathlib import Path

import numpy as np
import torch
import transformers

E, K, D, T = 16, 4, 32, 64
SEEDS = 3
CAPACITY = 3  # slots per expert of the Switch router that drops; T / E is 4
FILE = Path(__file__).parent / "parity.npz"


def family(name):
    """The module of a model family and its configuration class."""
    modeling = importlib.import_module(f"transformers.models.{name}.modeling_{name}")
    return modeling, importlib.import_module(f"transformers.models.{name}.configuration_{name}")


def inputs(seed):
    """x_TD, w_DE with logits of standard deviation about 1, and a bias."""
    rng = np.random.default_rng(seed)
    x_TD = rng.standard_normal((T, D)).astype(np.float32)
    w_DE = (rng.standard_normal((D, E)) / D**0.5).astype(np.float32)
    return x_TD, w_DE, (0.3 * rng.standard_normal(E)).astype(np.float32)


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


MAKERS = {
    "mixtral": mixtral,
    "olmoe": olmoe,
    "olmoe renormalised": lambda: olmoe(True),
    "qwen3": qwen3,
    "qwen3 not renormalised": lambda: qwen3(False),
    "deepseek_v2": lambda: deepseek_v2(16.0, 4),
    "deepseek_v2 greedy": lambda: deepseek_v2(1.0, 1),
    "deepseek_v3": lambda: deepseek_v3(True, 4),
    "deepseek_v3 one group": lambda: deepseek_v3(True, 1),
    "deepseek_v3 not renormalised": lambda: deepseek_v3(False, 4),
    "deepseek_v3 one group, not renormalised": lambda: deepseek_v3(False, 1),
}


def choices(router, x_TD, w_DE, bias_E):
    """gate_TK and expert_TK of one of the routers; a bias where it has one."""
    with torch.no_grad():
        router.weight.copy_(torch.from_numpy(w_DE.T))
        if hasattr(router, "e_score_correction_bias"):
            router.e_score_correction_bias.copy_(torch.from_numpy(bias_E))
        _, gate_TK, expert_TK = router(torch.from_numpy(x_TD))
    return np.asarray(gate_TK, np.float32), np.asarray(expert_TK, np.int8)


def switch(x_TD, w_DE, capacity):
    """One-hot rows of the experts that serve each token, zero where it was dropped; gates."""
    modeling, configuration = family("switch_transformers")
    config = configuration.SwitchTransformersConfig(
        d_model=D, num_experts=E, expert_capacity=capacity, router_jitter_noise=0.01
    )
    router = modeling.SwitchTransformersTop1Router(config).eval()
    with torch.no_grad():
        router.classifier.weight.copy_(torch.from_numpy(w_DE.T))
        hot_TE, gate_T1, _ = (value[0] for value in router(torch.from_numpy(x_TD)[None]))
    return np.asarray(hot_TE, np.int8), np.asarray(gate_T1, np.float32)


def losses(drawn):
    """Load-balance losses of three layers and of each, Switch's losses of two sequences."""
    modeling, switched = family("mixtral")[0], family("switch_transformers")[0]
    logits = tuple(torch.from_numpy(x_TD @ w_DE) for x_TD, w_DE, _ in drawn)
    found = {
        "pooled": modeling.load_balancing_loss_func(logits, E, K),
        "single": [modeling.load_balancing_loss_func((one,), E, K) for one in logits],
    }
    for name in ("olmoe", "qwen3_moe"):
        other = family(name)[0].load_balancing_loss_func(logits, E, K)
        torch.testing.assert_close(other, found["pooled"])  # one function under three names
    halves = [one.reshape(2, T // 2, E) for one in logits]
    found["switch load_balance"] = [
        switched.load_balancing_loss_func(one.softmax(-1), one.argmax(-1)) for one in halves
    ]
    found["switch z_loss"] = [switched.router_z_loss_func(one) for one in halves]
    return {name: np.asarray(value, np.float32) for name, value in found.items()}


def arrays():
    """Name -> array; the first axis is the seed, but for what belongs to all of them."""
    drawn = [inputs(seed) for seed in range(SEEDS)]
    names = ("x_TD", "w_DE", "bias_E")
    stacked = map(np.stack, zip(*drawn, strict=True))
    found = dict(zip(names, stacked, strict=True))
    for name, make in MAKERS.items():
        pairs = [choices(make(), *one) for one in drawn]
        found[f"{name}/gate_TK"], found[f"{name}/expert_TK"] = map(
            np.stack, zip(*pairs, strict=True)
        )
    for name, capacity in (("switch", T), ("switch with drops", CAPACITY)):
        pairs = [switch(x_TD, w_DE, capacity) for x_TD, w_DE, _ in drawn]
        found[f"{name}/hot_TE"], found[f"{name}/gate_T1"] = map(np.stack, zip(*pairs, strict=True))
    return found | losses(drawn)


def main():
    """Writes the file."""
    parts = {"python": platform, "numpy": np, "torch": torch, "transformers": transformers}
    versions = {
        name: platform.python_version() if part is platform else part.__version__
        for name, part in parts.items()
    }
    np.savez_compressed(FILE, versions=json.dumps(versions), **arrays())


if __name__ == "__main__":
    main()
