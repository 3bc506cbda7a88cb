"""Different routers at different depths: the model, its reports, its updates and its costs."""

import jax
import numpy as np
import pytest

from moe import fields
from moe.cost import account
from moe.data.data import Data
from moe.experiment import Experiment, Train
from moe.experts.feed_forward import SwiGLU
from moe.model.attention import Attention
from moe.model.layer import MoE
from moe.model.transformer import Transformer
from moe.plan import Tokens
from moe.routers.expert_choice import ExpertChoice
from moe.routers.hash import BALANCED, Hash
from moe.routers.layout import First, Last
from moe.routers.loss_free import LossFree
from moe.routers.parts.losses import Losses
from moe.routers.top_k import TopK
from moe.training import step
from tests.fakes.data import SyntheticDataset

DATASET = SyntheticDataset()


def model(layout, router=TopK(k=2), layers=3):  # noqa: B008
    return Transformer(
        vocab_size=32,
        num_layers=layers,
        model_width=16,
        attention=Attention(num_heads=2, num_kv_heads=1, head_width=8),
        moe=MoE(num_experts=4, router=router, experts=SwiGLU(8)),
        moe_layers=tuple(range(layers)),
        layout=layout,
    )


def test_routers_by_depth():
    top, hashed = TopK(k=2), Hash(k=1)
    assert model(None).routers == (top, top, top)
    assert model(First(hashed, 1)).routers == (hashed, top, top)
    assert model(Last(hashed, 2)).routers == (top, hashed, hashed)
    assert len(model(None).moes) == 1 and len(model(First(hashed, 1)).moes) == 3
    dense = model(None).clone(moe=None, moe_layers=())
    assert dense.routers == ()


def test_one_override_says_it():
    experiment = Experiment(model(None))
    changed = fields.override(experiment, "model.layout", "first")
    changed = fields.override(changed, "model.layout.router_there", "hash_random")
    changed = fields.override(changed, "model.layout.layers", "2")
    assert changed.model.routers == (Hash(), Hash(), TopK(k=2))
    assert fields.override(changed, "model.layout", "none") == experiment


@pytest.mark.slow
def test_training_updates_each_layer_by_its_own_router_and_averages_losses_over_those_with_them():
    layered = model(First(BALANCED, 1), LossFree(k=2, rate=0.5, losses=Losses()))
    run = Experiment(layered, Data(sequence_length=16), train=Train(batch=4))
    batch = DATASET.batch(0, 0, 4)
    state = step.init(run, DATASET.corpus)
    table = state.params["layers"]["block0"]["moe"]["router"]["state"]["expert_VK"]
    table = np.asarray(table)
    _, reports = jax.jit(layered.apply)({"params": state.params}, Tokens(batch.id_BL))
    assert [set(losses) for losses in reports.losses] == [set(), *[{"load_balance", "z_loss"}] * 2]
    want = np.mean([float(losses["z_loss"]) for losses in reports.losses[1:]])
    state, metrics = step.train_step(run, state, batch)
    np.testing.assert_allclose(metrics.losses["z_loss"], want, rtol=1e-5)
    blocks = state.params["layers"]
    np.testing.assert_array_equal(blocks["block0"]["moe"]["router"]["state"]["expert_VK"], table)
    for n in (1, 2):
        bias_E = blocks[f"block{n}"]["moe"]["router"]["state"]["bias_E"][0]
        want_E = 0.5 * np.sign(metrics.load_NE[n].mean() - metrics.load_NE[n])
        np.testing.assert_array_equal(bias_E, want_E)
    assert metrics.load_NE.shape == (3, 4)
    np.testing.assert_array_equal(metrics.load_NE.sum(axis=1), [64, 128, 128])


def test_cost_counts_every_layer_by_its_own_router():
    # Per layer 3 * 16 * 8 * choices: 2 and 2 and 1; routers of 16 x 4 in two of three layers.
    parts = account.params_by_part(model(Last(Hash(k=1), 1)), tokens=64)
    assert parts["experts"] == 3 * 16 * 8 * (2 + 2 + 1) and parts["router"] == 2 * 64


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (model(First(BALANCED, 4)), r"m.layout.layers=4: must be in \[1, 3 MoE layers\]"),
        (model(Last(TopK(k=9), 1)), r"m.layout.router_there.k=9: must be in \[1, num_experts=4\]"),
        (
            model(First()).clone(moe=None, moe_layers=()),
            "m.layout: must be none when m.moe is none",
        ),
    ],
)
def test_impossible_layouts_are_one_line(changed, line):
    with pytest.raises(ValueError, match=f"^{line}$"):
        changed.check("m", 64)


def test_a_router_that_sees_later_tokens_is_refused_by_its_path():
    data, length = Data(tokenizer="bytes", sequence_length=16), Train(batch=4)
    changed = model(First(ExpertChoice(), 1)).clone(vocab_size=257)
    line = "^model.layout.router_there=ExpertChoice: sees later tokens, so the loss of a language"
    with pytest.raises(ValueError, match=line):
        Experiment(changed, data, train=length).validate()
    Experiment(changed, data, train=length, allow_noncausal=True).validate()
