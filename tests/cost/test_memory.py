"""What training holds on a device: by hand, against the model's own parameters, and as compiled."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from experiments.command.show import arm_sheet
from moe.cost import memory
from moe.data.data import Data
from moe.devices import mesh
from moe.dispatch.all_to_all import AllToAll
from moe.dispatch.auto import Auto
from moe.dispatch.einsum import Einsum
from moe.experiment import Experiment, Train
from moe.experts.feed_forward import ReLU, SwiGLU
from moe.experts.null import NullExperts
from moe.experts.shared import SharedExpert
from moe.model.attention import Attention
from moe.model.layer import MoE
from moe.model.multihash import MultiHash
from moe.model.token_vectors import TokenVectors
from moe.model.transformer import Transformer
from moe.plan import Tokens
from moe.routers.hash import Hash
from moe.routers.top_k import TopK
from moe.training import step

DENSE = Transformer(
    vocab_size=64,
    num_layers=4,
    model_width=32,
    attention=Attention(num_heads=4, num_kv_heads=2, head_width=8),
    ffn=SwiGLU(48),
)
SPARSE = DENSE.clone(
    moe=MoE(num_experts=8, router=TopK(k=2), experts=SwiGLU(16)), moe_layers=(0, 1, 2, 3)
)


@pytest.mark.parametrize(
    "model",
    [
        DENSE,
        DENSE.clone(tied_head=False, attention=Attention(4, 2, 8, qk_norm=False)),
        SPARSE.clone(moe_layers=(1, 3)),
        SPARSE.clone(moe=MoE(8, Hash(), shared=SharedExpert(ReLU(8)), null=NullExperts(2))),
        SPARSE.clone(moe=MultiHash()),
        DENSE.clone(token_vectors=TokenVectors()),
    ],
    ids=["dense", "own head", "every second layer", "null and shared", "multihash", "vectors"],
)
def test_the_parameters_are_those_of_the_model(model):
    def shapes(tree):
        return {jax.tree_util.keystr(k): v.shape for k, v in jax.tree.leaves_with_path(tree)}

    tokens = Tokens(jnp.zeros((1, 8), jnp.int32))
    own = jax.eval_shape(lambda: model.init(jax.random.key(0), tokens)["params"])
    assert shapes(memory.parameters(model)) == shapes(own)


def test_bytes_on_a_device_by_hand():
    run = Experiment(SPARSE, Data(sequence_length=16), train=Train(batch=8))
    with mesh.planned(mesh.parse("data:2,fsdp:2,expert:2")):
        found = memory.in_training(run)
    # Split over fsdp: embedding 64 x 32, and in each of 4 layers 2 x (4 + 2) heads of 8 x 32; over
    # fsdp and expert: 8 experts of 3 x 32 x 16. Whole: routers of 32 x 8, and norms of 2 x 32 and
    # 2 x 8 in a layer, of 32 at the end.
    attention, experts = 4 * 12 * 8 * 32, 4 * 8 * 3 * 32 * 16
    whole = 4 * (32 * 8 + 2 * 32 + 2 * 8) + 32
    held = (64 * 32 + attention) // 2 + experts // 4 + whole
    assert found["parameters"] == found["gradients"] == 4 * held
    assert found["optimizer"] == 8 * held
    # Collected: all of it in float32, since nothing is computed again, experts over fsdp only.
    assert found["gathered"] == 4 * (64 * 32 + attention + experts // 2 + whole)
    # 16 tokens a device. In a layer, for each: attention 3 x 32 + 2 x 12 x 8 + 2 x 4 x 16; tokens
    # before and after the experts 2 x 32; and as `ragged` makes room for all choices of both
    # devices of the expert axis, 4 rows of 2 x 32 + 4 x 16. At the end logits and their gradient.
    layer = 3 * 32 + 2 * 12 * 8 + 2 * 4 * 16 + 2 * 32 + 4 * (2 * 32 + 4 * 16)
    assert found["activations"] == 16 * (4 * 4 * layer + 2 * 4 * 64)


def test_a_tensor_axis_splits_heads_widths_and_vocabulary():
    run = Experiment(DENSE, Data(sequence_length=16), train=Train(batch=8))
    with mesh.planned(mesh.parse("tensor:4")):
        found = memory.in_training(run)
    # 2 key/value heads are fewer than 4 devices and lie whole. In each of 4 layers: queries and
    # outputs 2 x 1 head, keys and values 2 x 2, of 8 x 32; 3 x 32 x 12; norms as above.
    layer = (2 * 1 + 2 * 2) * 8 * 32 + 3 * 32 * 12 + 2 * 32 + 2 * 8
    assert found["parameters"] == 4 * (16 * 32 + 4 * layer + 32)
    heads = 2 * (1 + 2) * 8
    each = 3 * 32 + 2 * heads + 2 * 1 * 16 + 2 * 32 + 4 * 12
    assert found["activations"] == 8 * 16 * (4 * 4 * each + 2 * 4 * 16)
    assert "gathered" not in found


@pytest.mark.parametrize(
    ("remat", "kept"),
    [
        # For a token of a dense model, 4 layers: everything; what enters each layer and all of one;
        # and the plain products, 4 heads and 2 x 2 of 8, 32 of attention, 2 x 48 and 32.
        ("none", 4 * (3 * 32 + 2 * 96 + 2 * 4 * 16 + 2 * 32 + 4 * 48)),
        ("period", 4 * 32 + (3 * 32 + 2 * 96 + 2 * 4 * 16 + 2 * 32 + 4 * 48)),
        (
            "dots",
            4 * (32 + 64 + 32 + 96 + 32) + (3 * 32 + 2 * 96 + 2 * 4 * 16 + 2 * 32 + 4 * 48),
        ),
    ],
)
def test_what_is_computed_again_is_not_kept(remat, kept):
    run = Experiment(DENSE.clone(remat=remat), Data(sequence_length=16), train=Train(batch=8))
    assert memory.in_training(run)["activations"] == 8 * 16 * (4 * kept + 2 * 4 * 64)


@pytest.mark.parametrize(
    ("dispatch", "rows"),
    [
        (Einsum(capacity_factor=1.5), 1.5 * 2),
        (AllToAll(capacity_factor=2.0), 2 * 2),
        (AllToAll(capacity_factor=100.0), 8 * 2),  # no more than there are
        (Auto(room=1.5), 1.5 * 2),  # of the exchange, on 8 devices of an expert axis
    ],
)
def test_the_rows_of_experts_are_those_that_there_is_room_for(dispatch, rows):
    with mesh.planned(mesh.parse("expert:8")):
        assert dispatch.rows(100, 2, 8) == rows * 100


WIDE = Transformer(
    vocab_size=512,
    num_layers=4,
    model_width=256,
    attention=Attention(num_heads=4, num_kv_heads=2, head_width=64),
    ffn=SwiGLU(512),
)


def compiled(run):
    return step.lower(run).compile().memory_analysis()


@pytest.mark.parametrize("remat", ["none", "period", "dots"])
def test_the_estimate_is_near_the_compiled_training_step(remat):
    run = Experiment(WIDE.clone(remat=remat), Data(sequence_length=128), train=Train(batch=8))
    there, found = compiled(run), memory.in_training(run)
    held = found["parameters"] + found["optimizer"]
    assert there.argument_size_in_bytes == pytest.approx(held, rel=0.02)
    temporary = found["gradients"] + found["activations"]
    assert 0.4 < temporary / there.temp_size_in_bytes < 2.5


@pytest.mark.multi_device
@pytest.mark.slow
def test_the_state_on_a_device_is_that_of_the_compiled_step():
    model = SPARSE.clone(moe=dataclasses.replace(SPARSE.moe, router=Hash()))
    run = Experiment(model, Data(sequence_length=16), train=Train(batch=8))
    with mesh.in_use(mesh.parse("data:2,fsdp:2,expert:2")):
        found, there = memory.in_training(run), compiled(run).argument_size_in_bytes
    # Beside them the ids and targets of its one row of 16, two counters of steps, and the seed.
    rest = (2 * 16 + 2 + 1) * 4
    assert there == found["parameters"] + found["optimizer"] + rest


def test_show_says_it_of_a_device_of_a_mesh():
    with mesh.planned(mesh.parse("data:2,expert:4")):
        text = arm_sheet("dense_topk_hash", "top2", "tiny", [])
    assert "memory in training, on each of 8 devices: " in text
    assert "memory in training: " in arm_sheet("dense_topk_hash", "top2", "tiny", [])
