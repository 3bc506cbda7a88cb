"""Cost formulas against published totals, real parameter trees and compiled HLO."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import pytest

from experiments.select import resolve
from experiments.studies.dense_topk_hash import STUDY
from moe.cost import account, widths
from moe.dispatch.einsum import Einsum
from moe.experts.feed_forward import ReLU, SwiGLU
from moe.experts.null import NullExperts
from moe.experts.shared import SharedExpert
from moe.model import attention
from moe.model.attention import Attention
from moe.model.layer import MoE
from moe.model.transformer import Transformer
from moe.params import split_state
from moe.plan import Tokens
from moe.routers.dense import Dense
from moe.routers.hash import Hash
from moe.routers.top_k import TopK


def published(D, N, heads, experts, V):
    F, E, k = experts
    return Transformer(
        vocab_size=V,
        num_layers=N,
        model_width=D,
        attention=Attention(*heads),
        moe=MoE(num_experts=E, router=TopK(k=k), experts=SwiGLU(F)),
        moe_layers=tuple(range(N)),
        tied_head=False,
    )


@pytest.mark.parametrize(
    ("model", "total", "active"),
    [
        # Mixtral 8x7B and 8x22B (arXiv 2401.04088), Qwen3-30B-A3B (2505.09388).
        (published(4096, 32, (32, 8, 128, False), (14336, 8, 2), 32000), 46_702_792_704, 12.880e9),
        (published(6144, 56, (48, 8, 128, False), (16384, 8, 2), 32000), 140_620_634_112, 39.152e9),
        (published(2048, 48, (32, 4, 128), (768, 128, 8), 151936), 30_532_122_624, 3.353e9),
    ],
)
def test_published_parameter_counts(model, total, active):
    assert sum(account.params_by_part(model).values()) == total
    assert sum(account.params_by_part(model, tokens=1).values()) == pytest.approx(active, rel=1e-4)


ARMS = [(arm, "tiny") for arm, _ in STUDY.arms]
ARMS += [(arm, size) for size in STUDY.sizes[1:] for arm in STUDY.main_arms]


@pytest.mark.parametrize(("arm", "size"), ARMS)
def test_counts_equal_the_parameter_tree(arm, size):
    experiment = STUDY.build(arm, size)
    shapes = jax.eval_shape(
        lambda: experiment.model.init(jax.random.key(0), Tokens(jnp.zeros((1, 8), jnp.int32)))
    )
    leaves = jax.tree.leaves(split_state(shapes)[0])  # tables and frozen projections do not count
    assert account.account(experiment).params_total == sum(math.prod(a.shape) for a in leaves)


@pytest.mark.parametrize("size", STUDY.sizes)
def test_arms_agree_within_one_percent(size):
    arms = resolve(STUDY_NAME, ("all",), size, ())
    accounts = {arm: account.account(e) for arm, e in arms.items()}
    dense, total = accounts["dense"], accounts["top1"].params_total
    for arm, found in accounts.items():
        if arm != "dense_total":
            assert found.flops_per_token == pytest.approx(dense.flops_per_token, rel=0.01), arm
            assert found.params_active == pytest.approx(dense.params_active, rel=0.01), arm
        if arm not in APART:
            assert found.params_total == pytest.approx(total, rel=0.02), arm


STUDY_NAME = "dense_topk_hash"
# Fewer parameters as their names say; with top1's table, more by 2048 * 8 in each layer.
APART = ("dense", "dense_tokens", "one_expert", "top2_e8", "hash2_e8", "top1_tokens")
WIDE = Transformer(
    vocab_size=512,
    num_layers=2,
    model_width=256,
    attention=Attention(num_heads=4, num_kv_heads=2, head_width=64),
    ffn=SwiGLU(512),
    unroll=2,
)
# Capacity factor 1 computes T * K rows; all tokens are one group of 512.
SPARSE = WIDE.clone(
    moe=MoE(4, TopK(k=2), Einsum(1.0, 0), SwiGLU(256)), moe_layers=(0, 1), tied_head=False
)


@pytest.mark.parametrize(
    "model",
    [
        WIDE,
        SPARSE,
        SPARSE.clone(moe=MoE(4, Hash(k=1), Einsum(1.0, 0), ReLU(512))),
        SPARSE.clone(moe=MoE(2, Dense(), Einsum(1.0, 0), ReLU(256)), moe_layers=(1,)),
    ],
    ids=["dense", "top2", "hash relu", "dense router in one layer"],
)
def test_flops_equal_compiled_hlo(model, monkeypatch):
    B, L = 4, 128
    square = functools.partial(jax.nn.dot_product_attention, is_causal=True)
    monkeypatch.setattr(attention, "attend", square)  # on CPU it would skip a part of it
    tokens = Tokens(jax.ShapeDtypeStruct((B, L), jnp.int32))
    params = jax.eval_shape(model.init, jax.random.key(0), tokens)
    compiled = jax.jit(lambda p, t: model.apply(p, t)[0]).lower(params, tokens).compile()
    parts = account.flops_by_part(model, L, B * L)
    ours = B * L * sum(parts.values())
    # HLO counts elementwise work too, some per cent at these widths; ours is products only.
    assert 1.0 <= compiled.cost_analysis()["flops"] / ours < 1.06


def test_match_flops_by_hand():
    # top-2 of 4 in both layers: 2 * 2 * 3 * 256 F + router 2 * 256 * 4 = dense 2 * 3 * 256 * 512,
    # so F = 256 - 2048 / 3072 = 255.33, nearest 255.
    model = widths.match_flops(SPARSE, WIDE, 128)
    assert model.moe.experts.width == 255


def test_a_match_that_misses_one_percent_is_refused():
    tiny = WIDE.clone(model_width=2, ffn=SwiGLU(3), attention=Attention(1, 1, 2), vocab_size=1)
    sparse = tiny.clone(moe=MoE(4, TopK(k=2), experts=SwiGLU(1)), moe_layers=(0, 1))
    with pytest.raises(ValueError, match="^width=1: the nearest width misses the target by "):
        widths.match_flops(sparse, tiny, 1)


def test_overrides_keep_what_they_do_not_name():
    experiment = resolve(STUDY_NAME, ("top2",), "tiny", ("model.moe.router.k=3",))["top2"]
    assert (
        dataclasses.replace(experiment.model.moe.router, k=2)
        == STUDY.build("top2", "tiny").model.moe.router
    )


def test_fine_grained_experts_keep_parameters_and_flops():
    model = published(64, 2, (2, 2, 32, False), (48, 4, 2), 100)
    fine = widths.fine_grained(model, 4)
    assert (fine.moe.num_experts, fine.moe.router.k, fine.moe.experts.width) == (16, 8, 12)
    for tokens in (None, 64):
        one, many = (account.params_by_part(m, tokens) for m in (model, fine))
        assert one["experts"] == many["experts"] and 4 * one["router"] == many["router"]
    with pytest.raises(
        ValueError, match="^model.moe.experts.width=48: must be divisible by parts=5"
    ):
        widths.fine_grained(model, 5)
    with pytest.raises(ValueError, match="^model.moe.router=Dense: has no k to multiply$"):
        moe = dataclasses.replace(model.moe, router=Dense())
        widths.fine_grained(model.clone(moe=moe), 2)


def test_shared_and_null_experts_are_counted():
    # Shared: 3 * 16 * 5 for every token. Null: zero, copy and two constants of 16 + 32 numbers;
    # of 2 choices, 4 / 8 go to feed-forward experts of 3 * 16 * 8.
    moe = MoE(4, TopK(k=2), experts=SwiGLU(8), shared=SharedExpert(SwiGLU(5)), null=NullExperts())
    attention = Attention(num_heads=2, num_kv_heads=1, head_width=8)
    model = Transformer(32, 1, 16, attention, moe=moe, moe_layers=(0,))
    parts = account.params_by_part(model, tokens=8)
    assert parts["shared_experts"] == 3 * 16 * 5 and parts["null_experts"] == 2 * (16 + 32)
    assert parts["experts"] == 2 * 4 / 8 * 3 * 16 * 8 and parts["router"] == 16 * 8
    tokens = Tokens(jnp.zeros((1, 4), jnp.int32))
    params = jax.eval_shape(model.init, jax.random.key(0), tokens)["params"]
    total = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert sum(account.params_by_part(model).values()) == total
