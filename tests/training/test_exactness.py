"""The mesh changes no number, and a step holds the collectives that theory asks for."""

import contextlib
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe import params
from moe.cost import compiled
from moe.data.data import Data
from moe.devices import mesh, sharding
from moe.dispatch.all_to_all import AllToAll
from moe.dispatch.auto import Auto
from moe.dispatch.einsum import Einsum
from moe.dispatch.gather import Gather
from moe.dispatch.oracle import Oracle
from moe.dispatch.overflow import Exact
from moe.dispatch.ragged import Ragged
from moe.dispatch.ragged_all_to_all import RaggedAllToAll
from moe.experiment import Experiment, Train
from moe.experts.feed_forward import SwiGLU
from moe.experts.null import NullExperts
from moe.experts.shared import SharedExpert
from moe.model.attention import Attention
from moe.model.layer import MoE
from moe.model.multihash import MultiHash
from moe.model.transformer import Transformer
from moe.plan import capacity
from moe.routers.expert_choice import ExpertChoice
from moe.routers.hash import Hash
from moe.routers.loss_free import LossFree
from moe.routers.parts.losses import Losses
from moe.routers.parts.noise import FixedNoise
from moe.routers.parts.ranking import product
from moe.routers.parts.tables import BlockTable
from moe.routers.top_k import TopK
from moe.training import step
from tests.fakes.data import SyntheticDataset

pytestmark = pytest.mark.multi_device
DATASET = SyntheticDataset()
ROUTER = LossFree(k=2, losses=Losses(load_balance=0.05, z_loss=0.01))
DISPATCHERS = {  # 8 rows of 16 tokens are 8 groups; at capacity factor 1 a fifth is dropped
    "einsum": Einsum(capacity_factor=1.0, group_size=16),
    "gather": Gather(capacity_factor=1.0, group_size=16),
    "ragged": Ragged(),
    "all_to_all": AllToAll(capacity_factor=8.0),
    "all_to_all exact": AllToAll(0.5, Exact()),
    "ragged_all_to_all exact": RaggedAllToAll(0.5, Exact()),
    "auto": Auto(),
    "oracle": Oracle(),
}


def experiment(moe, depth=2, remat="none", unroll=1, **changes):
    model = Transformer(
        vocab_size=32,
        num_layers=depth,
        model_width=16,
        attention=Attention(num_heads=4, num_kv_heads=2, head_width=8),
        ffn=SwiGLU(16),
        moe=moe,
        moe_layers=tuple(range((depth - 1) % 2, depth, 2)) if moe else (),
        remat=remat,
        unroll=unroll,
    )
    fields = {"batch": 8, "steps": 20, **changes}
    data = Data(sequence_length=16)
    return Experiment(model, data, train=Train(**fields), allow_noncausal=True)


def layer(dispatch, router=ROUTER, **parts):
    return MoE(num_experts=8, router=router, dispatch=dispatch, experts=SwiGLU(16), **parts)


LAYERS = {name: layer(dispatch) for name, dispatch in DISPATCHERS.items()} | {
    "dense": None,
    "parts": layer(Ragged(), null=NullExperts(), shared=SharedExpert(SwiGLU(8))),
    "expert_choice of a batch": layer(Ragged(), ExpertChoice()),
    "noise": layer(Ragged(), TopK(k=2, noise=FixedNoise(), losses=Losses(load=0.1))),
    "multihash": MultiHash(num_experts=8, router=Hash(k=2, table=BlockTable()), experts=SwiGLU(16)),
}


@functools.cache
def first(name):
    """The state before step 0, made on one device."""
    return jax.tree.map(np.asarray, step.init(experiment(LAYERS[name]), DATASET.corpus))


@functools.cache
def trained(name, text=None, begun=None, **changes):
    """The state after all steps on a mesh (None: one device, no mesh), and what steps reported.

    begun names the layer whose first state is taken, instead of one that is made on the mesh.
    """
    run = experiment(LAYERS[name], **changes)
    if text is not None:
        assert mesh.obstacle(mesh.parse(text), run) is None
    with mesh.in_use(mesh.parse(text)) if text else contextlib.nullcontext():
        state = step.init(run, DATASET.corpus) if begun is None else sharding.put(first(begun))
        reports = []
        for n in range(run.train.steps):
            state, metrics = step.train_step(run, state, DATASET.batch(0, n, 8))
            reports.append(metrics)
    for metrics in reports:
        jax.tree.map(bit_equal_everywhere, metrics)
    return jax.tree.map(np.asarray, (state, reports))


def bit_equal_everywhere(array):
    """Asserts that what is the same on all devices by declaration is so in fact."""
    assert array.sharding.is_fully_replicated
    for shard in array.addressable_shards:
        np.testing.assert_array_equal(shard.data, array.addressable_shards[0].data)


def assert_same(got, want):
    """Losses to 1e-5, gradients to 2e-5, counts and router state exactly, after every step."""
    for one, other in zip(got[1], want[1], strict=True):
        for name, rtol in (("loss", 1e-5), ("nats", 1e-5), ("grad_norm", 2e-5)):
            np.testing.assert_allclose(
                getattr(one, name), getattr(other, name), rtol=rtol, err_msg=name
            )
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), one.losses,
                     other.losses)  # fmt: skip
        for name in ("load_NE", "dropped_N"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    fixed, same = (params.split_state(state.params)[1] for state, _ in (got, want))
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-7), fixed, same)
    # Adam divides by the gradient's size: where that is near 0, rounding moves a step's direction;
    # here by a sixth of a step of the learning rate's size at most, and most by far less.
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, atol=5e-4), got[0].params, want[0].params
    )


CASES = [  # each mechanism once, and each axis, alone or in a product with the others
    ("all_to_all exact", "data:2,expert:4"),
    ("ragged_all_to_all exact", "expert:4,tensor:2"),
    ("auto", "fsdp:2,expert:4"),
    ("einsum", "expert:8"),
    ("gather", "data:8"),
    ("ragged", "fsdp:2,expert:2,tensor:2"),
    ("all_to_all", "data:2,expert:2,tensor:2"),
    ("oracle", "data:2,expert:2,tensor:2"),
    ("dense", "data:2,fsdp:2,tensor:2"),
    ("parts", "data:2,expert:2,tensor:2"),
    ("expert_choice of a batch", "data:2,expert:2"),
    ("noise", "data:2,expert:2"),
    ("multihash", "data:2,fsdp:2"),
]


@dataclasses.dataclass(frozen=True)
class Narrow(ExpertChoice):
    """Reports in how many groups an expert's last choice beat the next by a rounding error."""

    def __call__(self, params, x_TD, id_T, E, rng):
        routing = super().__call__(params, x_TD, id_T, E, rng)
        C = capacity(self.capacity_factor, x_TD.shape[0], 1, E)
        probability_TE = jax.nn.softmax(product(x_TD, params["w_DE"]))
        best_EC = jax.lax.top_k(probability_TE.T, C + 1)[0]
        narrow = jnp.any(best_EC[:, -2] - best_EC[:, -1] < 1e-6 * best_EC[:, -1])
        return routing.replace(metrics={"narrow": narrow.astype(jnp.float32)})


@pytest.mark.slow
def test_every_step_of_expert_choice_in_groups_is_that_of_one_device_unless_rounding_chooses():
    run = experiment(layer(Einsum(group_size=16), Narrow(), null=NullExperts()))
    used, narrow = mesh.parse("fsdp:2,expert:2,tensor:2"), []
    state = step.init(run, DATASET.corpus)
    for n in range(run.train.steps):
        batch = DATASET.batch(0, n, 8)
        with mesh.in_use(used):
            there = step.train_step(run, sharding.put(jax.tree.map(np.asarray, state)), batch)
        state, metrics = step.train_step(run, state, batch)
        narrow.append(float(metrics.metrics["narrow"]))
        if not narrow[-1]:
            after = jax.tree.map(np.asarray, there)
            assert_same((after[0], [after[1]]), (state, [metrics]))
    assert sum(n > 0 for n in narrow) <= 3, narrow  # 2 of 20 when it was written


@pytest.mark.slow
@pytest.mark.parametrize(("name", "text"), CASES)
def test_twenty_steps_are_those_of_one_device(name, text):
    assert_same(trained(name, text, begun=name), trained(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["einsum", "ragged", "all_to_all"])
def test_microbatches_on_a_mesh_are_one_batch_on_one_device(name):
    assert_same(trained(name, "expert:2,tensor:2", accumulate=2), trained(name))


@pytest.mark.slow
def test_what_saves_memory_or_time_on_a_mesh_changes_nothing():
    few, change = {"depth": 4, "steps": 5}, {"remat": "dots", "unroll": 2}
    text = "fsdp:2,expert:2,tensor:2"
    assert_same(trained("ragged", text, **few, **change), trained("ragged", **few))


@pytest.mark.slow
def test_a_step_on_a_mesh_is_that_of_one_device():
    few = {"depth": 1, "steps": 2}
    assert_same(trained("ragged", "expert:2", **few), trained("ragged", **few))


def step_text(run, text):
    """The optimized program of a training step."""
    with mesh.in_use(mesh.parse(text)):
        lowered = step.lower(run)
    return lowered.compile().as_text()


GOLDEN = {  # how often each kind runs in a step of 2 layers, one of them with experts
    # Gradients: of each turn of the scan over layers, and of the rest.
    ("dense", "data:4"): {"all-reduce": 3},
    # Gradients and, before them, what the router losses sum; the compiler joins what it can.
    ("ragged", "data:4"): {"all-reduce": 2},
    # Rows there and back, forward and backward.
    ("einsum", "expert:4"): {"all-reduce": 2, "all-to-all": 4},
    ("gather", "expert:4"): {"all-reduce": 2, "all-to-all": 4},
    # The same, and once the numbers of the experts of the rows.
    ("all_to_all", "expert:4"): {"all-reduce": 2, "all-to-all": 5},
    # Tokens, experts and gates are gathered and sums scattered; backward the other way round.
    ("ragged", "expert:4"): {"all-gather": 4, "all-reduce": 2, "reduce-scatter": 3},
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "text"), GOLDEN)
def test_a_step_holds_the_collectives_of_theory(name, text):
    found = compiled.collectives(step_text(experiment(LAYERS[name]), text))
    counts = {kind: count for kind, (count, _) in compiled.table(found).items()}
    lines = "\n".join(map(str, found))
    assert counts == GOLDEN[name, text], f"explain the change, then the table:\n{lines}"
    weights = {"f32[8,16,16]", "f32[1,8,16,16]", "f32[2,16,16]", "f32[1,2,16,16]"}
    gathered = {one.shape for one in found if one.kind in ("all-gather", "all-to-all")}
    assert not gathered & weights, lines
    if name in ("all_to_all", "einsum", "gather"):  # no device sees the tokens of all
        assert not [one for one in found if one.kind == "all-gather"], lines


@pytest.mark.slow
def test_fsdp_gathers_each_weight_and_no_token():
    found = compiled.collectives(step_text(experiment(LAYERS["ragged"]), "fsdp:4"))
    gathered = [one.shape for one in found if one.kind == "all-gather"]
    assert gathered.count("f32[1,8,16,16]") == 3  # w_gate, w_in, w_out: kept for the way back
    tokens = {"f32[8,16,16]", "f32[128,16]", "f32[128,8]", "f32[8,16,32]"}
    assert not tokens & set(gathered), gathered


def test_every_device_holds_its_part_of_the_state():
    run = experiment(LAYERS["ragged"])
    with mesh.in_use(mesh.parse("fsdp:2,expert:2,tensor:2")):
        state = step.abstract_state(run)
    whole = sum(leaf.size for leaf in jax.tree.leaves(state))
    part = sum(np.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in jax.tree.leaves(state))
    # Experts are cut 8-fold, the rest at most 4-fold; norms and the router are whole.
    assert 1 / 8 < part / whole < 1 / 4
    assert sharding.sizes() == {}
