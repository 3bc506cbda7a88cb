"""The transformer: causality by gradient, hosting, scan, dtypes, and its one-line errors."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from moe.dispatch.einsum import Einsum
from moe.dispatch.oracle import Oracle
from moe.experts.feed_forward import ReLU, SwiGLU
from moe.fields import check_fields
from moe.model.attention import Attention, normalize, rotate
from moe.model.depth import map_routers
from moe.model.flax_host import NnxMoE
from moe.model.layer import MoE
from moe.model.token_vectors import TokenVectors
from moe.model.transformer import Transformer
from moe.plan import Tokens
from moe.registry import Mistake
from moe.routers.hash import Hash
from moe.routers.parts.losses import Losses
from moe.routers.top_k import TopK

V, L, D = 32, 12, 16
SMALL = Transformer(
    vocab_size=V,
    num_layers=4,
    model_width=D,
    attention=Attention(num_heads=2, num_kv_heads=1, head_width=8),
    ffn=SwiGLU(24),
    moe=MoE(num_experts=4, router=TopK(k=2), experts=SwiGLU(12)),
    moe_layers=(1, 3),
)
TOKENS = Tokens(jax.random.randint(jax.random.key(9), (2, L), 0, V))


def init(model):
    return jax.jit(model.init)(jax.random.key(0), TOKENS)["params"]


@pytest.fixture(scope="module")
def params():
    return init(SMALL)


def logits(model, params):
    return jax.jit(lambda p, t: model.apply({"params": p}, t)[0])(params, TOKENS)


def test_shapes_and_reports_in_depth_order(params):
    out_BLV, aux = jax.jit(SMALL.apply)({"params": params}, TOKENS)
    assert out_BLV.shape == (2, L, V) and out_BLV.dtype == jnp.float32
    assert aux.load_NE.shape == (2, 4) and aux.assigned_NBLE.shape == (2, 2, L, 4)
    assert float(aux.load_NE.sum()) == 2 * (2 * L * 2)  # layers x tokens x choices


@pytest.mark.slow
def test_depth_order_of_reports():
    # Three MoE layers in a pattern of two places: layers 0, 2 | dense 1, 3 | then 4 apart.
    model = SMALL.clone(num_layers=6, moe_layers=(0, 1, 3, 4))
    assert model.moes == (SMALL.moe, SMALL.moe, None)
    params = init(model)
    numbered = map_routers(params, lambda p, n: {"w_DE": jnp.full_like(p["w_DE"], n + 1.0)})
    _, aux = jax.jit(model.apply)({"params": numbered}, TOKENS)
    # Equal logits s * (n + 1) for all experts: confidence is 1/4 everywhere, z differs by layer.
    assert len({float(layer["z_loss"]) for layer in aux.metrics}) == 4 == len(aux.metrics)
    first, second = numbered["layers"]["block0"], numbered["layers"]["block1"]
    np.testing.assert_array_equal(first["moe"]["router"]["w_DE"][:, 0, 0], [1, 3])
    np.testing.assert_array_equal(second["moe"]["router"]["w_DE"][:, 0, 0], [2, 4])


def test_no_position_depends_on_later_ones(params):
    embedding_VD = params["embedding_VD"]

    def at_position(embedding_VD, position):
        # Distinct ids, so that a row of the embedding belongs to one position.
        out = SMALL.clone(tied_head=False).apply(
            {"params": {**params, "embedding_VD": embedding_VD, "head_DV": embedding_0.T}},
            Tokens(jnp.arange(L)[None]),
        )[0]
        return jnp.sum(jnp.sin(out[0, position]))

    embedding_0 = embedding_VD
    grad_VD = jax.jit(jax.grad(at_position), static_argnums=1)(embedding_VD, 5)
    size_V = np.abs(grad_VD).sum(axis=1)
    assert (size_V[:6] > 1e-4).all()  # positions 0..5 matter
    assert (size_V[6:] == 0).all()  # later ones do not


@pytest.mark.slow
def test_unrolling_and_remat_change_nothing(params):
    def grads(model):
        loss = lambda p: jnp.sum(jnp.sin(model.apply({"params": p}, TOKENS)[0]))  # noqa: E731
        return jax.jit(jax.grad(loss))(params)

    want = grads(SMALL)
    changes = ({"unroll": 2}, {"remat": "period"}, {"remat": "dots"})
    for other in (SMALL.clone(**change) for change in changes):
        assert other != SMALL
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), grads(other), want
        )


def test_bfloat16_stays_near_float32(params):
    want, got = logits(SMALL, params), logits(SMALL.clone(dtype="bfloat16"), params)
    assert got.dtype == jnp.float32
    # The median, since rounding may send a single token on the edge to another expert.
    assert 1e-4 < float(jnp.median(jnp.abs(got - want))) < 0.05  # it is bfloat16, and only that


def test_token_vectors_start_at_nothing_and_reach_their_token_and_what_follows():
    dense = SMALL.clone(moe=None, moe_layers=())
    with_vectors = dense.clone(token_vectors=TokenVectors())
    params = init(with_vectors)
    vectors = params["layers"]["block0"]["token_vectors"]["vector_VD"]
    assert vectors.shape == (4, V, dense.model_width) and not vectors.any()
    before = logits(with_vectors, params)
    without = jax.tree_util.tree_map(lambda a: a, params)
    del without["layers"]["block0"]["token_vectors"]
    np.testing.assert_array_equal(before, logits(dense, without))
    # A vector of the last layer moves the logits of its own token's places and of no other.
    token = int(TOKENS.id_BL[0, 3])
    moved = vectors.at[3, token].set(1.0)
    params["layers"]["block0"]["token_vectors"]["vector_VD"] = moved
    changed = np.abs(logits(with_vectors, params) - before).max(axis=-1) > 1e-4
    np.testing.assert_array_equal(changed, np.asarray(TOKENS.id_BL) == token)


def test_one_expert_equals_the_dense_layer():
    dense = SMALL.clone(moe=None, moe_layers=())
    params = init(dense)
    one = MoE(num_experts=1, router=Hash(k=1), experts=dense.ffn)
    layers = {
        "block0": {
            **{k: v for k, v in params["layers"]["block0"].items() if k != "ffn"},
            "moe": {
                "experts": params["layers"]["block0"]["ffn"]["experts"],
                "router": {"state": {"expert_VK": jnp.zeros((4, V, 1), jnp.int32)}},
            },
        }
    }
    got = logits(SMALL.clone(moe=one, moe_layers=(0, 1, 2, 3)), {**params, "layers": layers})
    np.testing.assert_allclose(got, logits(dense, params), rtol=1e-5, atol=1e-5)


def test_permuting_experts_with_their_router_changes_nothing(params):
    order = jnp.array([2, 0, 3, 1])
    block = params["layers"]["block1"]
    moved = {
        "router": {"w_DE": block["moe"]["router"]["w_DE"][:, :, order]},
        "experts": jax.tree.map(lambda a: a[:, order], block["moe"]["experts"]),
    }
    layers = {**params["layers"], "block1": {**block, "moe": moved}}
    got = logits(SMALL, {**params, "layers": layers})
    np.testing.assert_allclose(got, logits(SMALL, params), rtol=1e-5, atol=1e-5)


def test_groups_route_apart():
    router = TopK(k=1, losses=Losses(scope="group"))
    layer = MoE(num_experts=4, router=router, dispatch=Einsum(1.0, 8), experts=ReLU(8))
    params = layer.init(jax.random.key(0), D, V)
    x_BLD = jax.random.normal(jax.random.key(1), (2, 12, D))
    run = jax.jit(layer)
    y_BLD, aux = run(params, x_BLD)
    parts = x_BLD.reshape(3, 1, 8, D)
    single = [run(params, part) for part in parts]
    want = jnp.concatenate([y.reshape(8, D) for y, _ in single])
    np.testing.assert_allclose(y_BLD.reshape(24, D), want, rtol=1e-5, atol=1e-6)
    dropped = sum(a.counts.dropped_K.sum() for _, a in single)
    assert float(aux.counts.dropped_K.sum()) == float(dropped) > 0
    np.testing.assert_allclose(
        aux.losses["load_balance"],
        np.mean([a.losses["load_balance"] for _, a in single]),
        rtol=1e-6,
    )
    again, _ = run(params, x_BLD, None, jax.random.key(3))  # no router here uses noise
    np.testing.assert_array_equal(again, y_BLD)


@pytest.mark.slow
def test_a_device_scope_forms_losses_over_each_devices_part():
    layers = [
        MoE(num_experts=4, router=TopK(k=2, losses=Losses(scope=scope)), experts=SwiGLU(8))
        for scope in ("device", "sequence", "batch")
    ]
    params = layers[0].init(jax.random.key(0), D, V)
    x_BLD = jax.random.normal(jax.random.key(1), (4, L, D))

    def loss(layer, x_BLD):
        return float(jax.jit(layer)(params, x_BLD)[1].losses["load_balance"])

    device, sequence, batch = layers
    assert loss(device, x_BLD) == loss(batch, x_BLD)  # one device
    auto = (jax.sharding.AxisType.Auto,)
    for count, like in ((4, sequence), (1, batch)):
        with jax.set_mesh(jax.make_mesh((count,), ("data",), axis_types=auto)):
            np.testing.assert_allclose(loss(device, x_BLD), loss(like, x_BLD), rtol=1e-6)
    assert abs(loss(sequence, x_BLD) / loss(batch, x_BLD) - 1) > 1e-3


def test_attention_equals_the_naive_form():
    attention = Attention(num_heads=4, num_kv_heads=2, head_width=8, qk_norm=False)
    params = attention.init(jax.random.key(0), D, 1)
    x_BLD = jax.random.normal(jax.random.key(1), (1, L, D))
    q, k, v = (
        np.einsum("BLD,DHA->BLHA", x_BLD, params[f"w_{n}"])
        for n in ("query_DHA", "key_DJA", "value_DJA")
    )
    q, k = (np.asarray(rotate(jnp.asarray(a), 10_000.0)) for a in (q, k))
    out = np.zeros((1, L, 4, 8))
    for h in range(4):
        for i in range(L):
            score = q[0, i, h] @ k[0, : i + 1, h // 2].T / np.sqrt(8)
            weight = np.exp(score - score.max())
            out[0, i, h] = weight / weight.sum() @ v[0, : i + 1, h // 2]
    want = np.einsum("BLHA,HAD->BLD", out, params["w_out_HAD"])
    np.testing.assert_allclose(attention(params, x_BLD), want, rtol=2e-4, atol=2e-5)


def test_rotation_depends_on_distance_only_and_norm_is_unit():
    x = jax.random.normal(jax.random.key(0), (1, 1, 1, 8))
    turned = rotate(jnp.broadcast_to(x, (1, 6, 1, 8)), 100.0)[0, :, 0]
    products = turned @ turned.T
    np.testing.assert_allclose(products[0, 2], products[3, 5], rtol=1e-5)
    assert abs(float(products[0, 2] - products[0, 0])) > 1e-3
    unit = normalize(jnp.array([3.0, 4.0]), jnp.ones(2))  # rms is sqrt(12.5)
    np.testing.assert_allclose(unit, np.array([3, 4]) / np.sqrt(12.5), rtol=1e-5)


def test_experts_by_hand():
    # relu(2 * 3) * 5 = 30; silu(2 * 1) * (2 * 3) * 5 with silu(2) = 2 / (1 + e^-2).
    x = jnp.full((1, 1, 1), 2.0)
    one = lambda v: jnp.full((1, 1, 1), v)  # noqa: E731
    np.testing.assert_allclose(ReLU(1)({"w_in_EDF": one(3.0), "w_out_EFD": one(5.0)}, x), 30)
    params = {"w_gate_EDF": one(1.0), "w_in_EDF": one(3.0), "w_out_EFD": one(5.0)}
    np.testing.assert_allclose(SwiGLU(1)(params, x).item(), 30 * 2 / (1 + np.exp(-2)), rtol=1e-6)


@pytest.mark.parametrize("router", [TopK(k=2), Hash(k=1)])
def test_nnx_host_equals_the_layer(router):
    layer = MoE(num_experts=4, router=router, dispatch=Oracle(), experts=SwiGLU(12))
    module = NnxMoE(layer, D, V, rngs=nnx.Rngs(params=jax.random.key(3)))
    x_BLD = jax.random.normal(jax.random.key(1), (2, L, D))
    y_BLD, aux = module(x_BLD, TOKENS)
    params = layer.init(nnx.Rngs(params=jax.random.key(3)).params(), D, V)
    want, _ = layer(params, x_BLD, TOKENS)
    np.testing.assert_allclose(y_BLD, want, rtol=1e-6)
    assert aux.assigned_BLE.shape == (2, L, 4)
    grads = nnx.grad(lambda m: jnp.sum(jnp.sin(m(x_BLD, TOKENS)[0])))(module)
    moved = [leaf for leaf in jax.tree.leaves(grads) if float(jnp.abs(leaf).max()) > 1e-4]
    # Three expert matrices, and the router's where it is learned; the table is not among them.
    assert len(moved) == len(jax.tree.leaves(grads)) == 3 + router.learned


def test_who_reads_no_ids_needs_none_and_others_say_so():
    x_BLD = jax.random.normal(jax.random.key(1), (2, L, D))
    layer = MoE(num_experts=4, router=TopK(k=2), experts=SwiGLU(8))
    params = layer.init(jax.random.key(0), D, V)
    np.testing.assert_array_equal(layer(params, x_BLD)[0], layer(params, x_BLD, TOKENS)[0])
    hashed = dataclasses.replace(layer, router=Hash())
    with pytest.raises(Mistake, match="^Hash: reads the tokens' ids, and there are none$"):
        hashed(hashed.init(jax.random.key(0), D, V), x_BLD)


def replaced(**changes):
    return SMALL.clone(moe=dataclasses.replace(SMALL.moe, **changes))


@pytest.mark.parametrize(
    ("model", "line"),
    [
        (SMALL.clone(num_layers=0), r"m.num_layers=0: must be in \[1, 4096\]"),
        (SMALL.clone(ffn=SwiGLU(0)), "m.ffn.width=0: must be >= 1"),
        (SMALL.clone(moe_layers=(1, 4)), r"m.moe_layers=\(1, 4\): must be rising .*num_layers=4\)"),
        (SMALL.clone(moe_layers=(3, 1)), r"m.moe_layers=\(3, 1\): must be rising .*num_layers=4\)"),
        (SMALL.clone(moe_layers=()), r"m.moe_layers=\(\): must be \(\) exactly when m.moe is none"),
        (replaced(num_experts=0), "m.moe.num_experts=0: must be >= 1"),
        (replaced(experts=ReLU(0)), "m.moe.experts.width=0: must be >= 1"),
        (replaced(router=TopK(k=5)), r"m.moe.router.k=5: must be in \[1, num_experts=4\]"),
        (SMALL.clone(attention=Attention(num_heads=0)), "m.attention.num_heads=0: must be >= 1"),
        (
            SMALL.clone(attention=Attention(num_heads=4, num_kv_heads=3)),
            "m.attention.num_kv_heads=3: must divide num_heads=4",
        ),
        (SMALL.clone(attention=Attention(head_width=7)), "m.attention.head_width=7: must be even"),
        (
            SMALL.clone(attention=Attention(rope_base=0.0)),
            "m.attention.rope_base=0.0: must be a number > 0",
        ),
    ],
)
def test_impossible_models_are_one_line(model, line):
    with pytest.raises(Mistake, match=f"^{line}$"):
        check_fields(model, "m")
        model.check("m", 24)
