"""Meshes by name, what can run on them, and specs read off the letters of names."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe.data.data import Data
from moe.devices import mesh, sharding
from moe.devices.mesh import Mesh
from moe.dispatch.einsum import Einsum
from moe.dispatch.gather import Gather
from moe.dispatch.placed import Placed
from moe.experiment import Experiment, Train
from moe.experts.feed_forward import SwiGLU
from moe.experts.null import NullExperts
from moe.experts.shared import SharedExpert
from moe.model.attention import Attention
from moe.model.layer import MoE
from moe.model.multihash import MultiHash
from moe.model.transformer import Transformer
from moe.plan import Tokens
from moe.registry import Mistake
from moe.training import step
from tests.fakes.data import SyntheticDataset

P = jax.P


def experiment(moe=MoE(num_experts=8, experts=SwiGLU(24)), **changes):  # noqa: B008
    model = Transformer(
        vocab_size=32,
        num_layers=2,
        model_width=16,
        attention=Attention(num_heads=4, num_kv_heads=1, head_width=8),
        ffn=SwiGLU(20),
        moe=moe,
        moe_layers=(1,) if moe else (),
    )
    train = Train(**{"batch": 8, **changes})
    return Experiment(model, Data(sequence_length=16), train=train, allow_noncausal=True)


def test_a_name_and_its_mesh():
    assert mesh.parse("expert:4,data:2") == Mesh(data=2, expert=4)
    assert mesh.parse(" fsdp : 8 ") == Mesh(fsdp=8)
    assert mesh.parse("data:1,tensor:1") == Mesh()
    assert str(Mesh(data=2, tensor=4)) == "data:2,tensor:4" and str(Mesh()) == "data:1"
    assert Mesh(2, 3, 4, 5).size == 120 and Mesh(2, 3, 4, 5).batch_parts == 24


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("dat:2", "no such axis; did you mean 'data'? (valid: data, expert, fsdp, tensor)"),
        ("data:2,data:4", "names data twice"),
        ("data:0", "data:0 must be a number of devices, as in data:2"),
        ("data:-1", "data:-1 must be a number of devices, as in data:2"),
        ("data:two", "data:two must be a number of devices, as in data:2"),
        ("data:²", "data:² must be a number of devices, as in data:2"),
        ("data:99999999999999999999", "data:99999999999999999999 must be a number of devices"),
        ("data:4096,expert:4096", "must have at most 1048576 devices"),
        ("data", "must be auto or AXIS:SIZE,..., as in data:2,expert:4"),
        ("", "must be auto or AXIS:SIZE,..., as in data:2,expert:4"),
        ("data:2,", "must be auto or AXIS:SIZE,..., as in data:2,expert:4"),
    ],
)
def test_what_is_no_mesh_is_one_line(text, line):
    with pytest.raises(ValueError) as error:
        mesh.parse(text)
    assert str(error.value).startswith(f"--mesh={text}: {line}") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "text", "reason"),
    [
        ({}, "data:16", "train.batch=8 must be divisible by data * fsdp * expert=16"),
        (
            {"accumulate": 2},
            "data:8",
            "train.batch=8 in 2 microbatches of 4 must be divisible by data * fsdp * expert=8",
        ),
        ({"batch": 9}, "expert:3", "model.moe.num_experts=8 must be divisible by expert=3"),
        ({"batch": 9}, "fsdp:3", "model.model_width=16 must be divisible by fsdp=3"),
        ({}, "tensor:3", "model.vocab_size=32 must be divisible by tensor=3"),
        ({}, "tensor:8", "model.attention.num_heads=4 must be divisible by tensor=8"),
        (
            {"moe": MoE(experts=SwiGLU(22))},
            "tensor:4",
            "model.moe.experts.width=22 must be divisible by tensor=4",
        ),
        (
            {"moe": MoE(shared=SharedExpert(SwiGLU(6)))},
            "tensor:4",
            "model.moe.shared.ffn.width=6 must be divisible by tensor=4",
        ),
        # 8 rows of 16 tokens are 2 groups of 64.
        (
            {"moe": MoE(dispatch=Einsum(group_size=64))},
            "data:4",
            "model.moe.dispatch.group_size=64: 2 groups of a batch must be divisible by data * "
            "fsdp * expert=4",
        ),
        (
            {"moe": MoE(dispatch=Gather())},
            "data:2",
            "model.moe.dispatch.group_size=0: 1 groups of a batch must be divisible by data * "
            "fsdp * expert=2",
        ),
        (
            {"moe": MultiHash()},
            "expert:2",
            "model.moe=MultiHash: the one part of its experts must be divisible by expert=2",
        ),
    ],
)
def test_an_impossible_mesh_is_one_line_that_names_the_nearest(changes, text, reason):
    with pytest.raises(ValueError) as error:
        mesh.choose(text, {"arm": experiment(**changes)}, None)
    line = str(error.value)
    assert line.startswith(f"--mesh={text}: {reason}; nearest possible: ") and "\n" not in line
    for name in line.split("nearest possible: ")[1].split(", "):
        assert mesh.obstacle(mesh.parse(name), experiment(**changes)) is None


def test_the_nearest_meshes_have_as_many_devices_where_there_are_any():
    # 4 heads are no obstacle to the two devices of data, fsdp or expert.
    arms = {"moe": experiment(), "dense": experiment(None)}
    with pytest.raises(ValueError, match=r"by tensor=8 \(arm moe\); nearest possible: (.*)") as e:
        mesh.choose("tensor:8", arms, 8)
    assert all(mesh.parse(t).size == 8 for t in str(e.value).split("possible: ")[1].split(", "))
    # Among meshes of any size, those of 8 devices come before nearer ones of 4.
    assert [m.size for m in mesh.nearest(Mesh(tensor=8), [experiment()], None)] == [8, 8, 8]
    with pytest.raises(ValueError, match="^--mesh=data:4: needs 4 devices, 8 are there; nearest"):
        mesh.choose("data:4", arms, 8)


def test_auto_is_data_parallel_as_far_as_the_batch_goes():
    assert mesh.choose("auto", {"arm": experiment()}, 8) == Mesh(data=8)
    # 16 devices, 8 rows: what does not split the batch is tensor.
    assert mesh.choose("auto", {"arm": experiment()}, 16) == Mesh(data=8, tensor=2)
    with pytest.raises(ValueError, match="^--mesh=auto: no mesh of 7 devices fits all arms; near"):
        mesh.choose("auto", {"arm": experiment()}, 7)


@pytest.mark.multi_device
@pytest.mark.parametrize(
    ("layer", "text", "line"),
    [
        # A width of 6 lies whole on each of 4 devices: their sum would be 4 times the output.
        (
            MoE(experts=SwiGLU(6)),
            "data:2,tensor:4",
            "model.moe.experts.width=6 must be divisible by tensor=4",
        ),
        (MoE(6), "expert:4", "model.moe.num_experts=6 must be divisible by expert=4"),
        # Three copies of two experts each: six networks.
        (
            MoE(2, dispatch=Placed(replicas=6)),
            "expert:4",
            "model.moe.num_experts=2: 6 networks must be divisible by expert=4",
        ),
        # B takes all of v = relu([A1 x, A2 x]), of which a device would hold half.
        (
            MultiHash(),
            "tensor:2",
            "model.moe=MultiHash: the one part of its experts must be divisible by tensor=2",
        ),
        (
            MultiHash(),
            "data:2,expert:2",
            "model.moe=MultiHash: the one part of its experts must be divisible by expert=2",
        ),
    ],
)
def test_a_layer_refuses_the_mesh_in_use_as_the_command_does(layer, text, line):
    """Where the mesh comes from jax.sharding, not from --mesh."""
    tokens = Tokens(jnp.zeros((8, 2), int))
    params = jax.eval_shape(lambda: layer.init(jax.random.key(0), 16, 32))
    with mesh.in_use(mesh.parse(text)), pytest.raises(Mistake) as error:
        jax.eval_shape(layer, params, jnp.ones((8, 2, 16)), tokens)
    assert str(error.value) == line


@pytest.mark.multi_device
def test_letters_are_specs():
    with mesh.in_use(Mesh(data=2, expert=2, tensor=2)):
        assert sharding.spec("EDF", (8, 16, 24)) == P("expert", None, "tensor")
        assert sharding.spec("EDF", (3, 8, 16, 24)) == P(None, "expert", None, "tensor")
        assert sharding.spec("EDF", (1, 16, 24)) == P(None, None, "tensor")  # one expert is whole
        assert sharding.spec("BLD", (8, 16, 16)) == P(("data", "expert"), None, None)
        assert sharding.spec("DJA", (16, 1, 8)) == P(None, None, None)
    with mesh.in_use(Mesh(fsdp=2, expert=2, tensor=2)):
        assert sharding.spec("EDF", (8, 16, 24)) == P("expert", "fsdp", "tensor")
        assert sharding.spec("EDF", (8, 16, 24), ("fsdp",)) == P("expert", None, "tensor")
        # The batch takes fsdp, so the width of an activation stays whole.
        assert sharding.spec("BLD", (8, 16, 16)) == P(("fsdp", "expert"), None, None)
        assert sharding.spec("VD", (32, 16)) == P("tensor", "fsdp")
    assert sharding.spec("EDF", (8, 16, 24)) == P(None, None, None)  # no mesh is in use


PARTS = MoE(experts=SwiGLU(24), shared=SharedExpert(SwiGLU(8)), null=NullExperts())


@pytest.mark.multi_device
def test_every_array_of_the_state_has_the_spec_of_its_name():
    state = step.abstract_state(experiment(PARTS))
    with mesh.in_use(Mesh(fsdp=2, expert=2, tensor=2)):
        specs = sharding.specs(state)
    assert specs.step == P()
    for layer in (specs.params["layers"], specs.opt_state[1][0].mu["layers"]):
        block = layer["block1"]["moe"]
        assert block["experts"]["w_in_EDF"] == P(None, "expert", "fsdp", "tensor")
        assert block["experts"]["w_out_EFD"] == P(None, "expert", "tensor", "fsdp")
        assert block["shared"]["w_out_EFD"] == P(None, None, "tensor", "fsdp")
        assert block["router"]["w_DE"] == block["null"]["vector_ED"] == P()
        assert layer["block0"]["attention"]["w_query_DHA"] == P(None, "fsdp", "tensor", None)
        assert layer["block0"]["ffn_norm"]["scale"] == P()


@pytest.mark.slow
@pytest.mark.multi_device
def test_a_state_is_born_in_parts_with_the_numbers_of_one_device():
    run, dataset = experiment(PARTS), SyntheticDataset()
    with mesh.in_use(Mesh(fsdp=2, expert=2, tensor=2)):
        state = step.init(run, dataset.corpus)
    w_in_EDF = state.params["layers"]["block1"]["moe"]["experts"]["w_in_EDF"]
    assert w_in_EDF.addressable_shards[0].data.shape == (1, 4, 8, 12)
    jax.tree.map(np.testing.assert_array_equal, state, step.init(run, dataset.corpus))


@pytest.mark.multi_device
def test_rows_of_a_batch_go_to_their_devices():
    batch = SyntheticDataset().batch(0, 0, 8)
    with mesh.in_use(Mesh(fsdp=2, expert=2, tensor=2)):
        spread = sharding.put_batch(batch, 8)
    assert spread.id_BL.sharding.spec == P(("fsdp", "expert"))
    assert spread.id_BL.addressable_shards[0].data.shape == (2, 16)
    jax.tree.map(np.testing.assert_array_equal, spread, batch)


def test_nothing_happens_without_a_mesh():
    x_BLD = jnp.ones((2, 3, 4))
    assert sharding.constrain(x_BLD, "BLD") is x_BLD and sharding.gathered(x_BLD) is x_BLD
    assert sharding.stored(x_BLD) is x_BLD and sharding.put_batch(x_BLD, 2) is x_BLD
    assert sharding.rows(8) is None and sharding.batch_parts() == 1


def test_every_field_of_a_mesh_is_an_axis():
    assert tuple(f.name for f in dataclasses.fields(Mesh)) == sharding.AXES == mesh.AXES
