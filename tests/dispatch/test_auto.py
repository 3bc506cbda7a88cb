"""The dispatcher that chooses: what it takes on which mesh, and that it says so once."""

import jax
import jax.numpy as jnp
import pytest

from experiments.command.show import arm_sheet
from moe.dispatch import auto
from moe.dispatch.all_to_all import AllToAll
from moe.dispatch.auto import Auto
from moe.dispatch.overflow import Exact
from moe.dispatch.ragged import Ragged
from moe.dispatch.ragged_all_to_all import RaggedAllToAll
from moe.experts.contract import Pool
from moe.experts.feed_forward import SwiGLU
from moe.fields import check_fields
from moe.plan import Choices
from tests.contracts.dispatch import mesh_of


@pytest.mark.parametrize(
    ("mesh", "K", "platform", "want"),
    [
        ((8, 1), 2, "cpu", Ragged()),
        ((1, 2), 2, "cpu", Ragged()),  # 2 * 1 against 2 * 2 * 1.5 * 1/2 = 3
        ((1, 8), 2, "cpu", AllToAll(1.5, Exact())),  # 2 * 7 against 2 * 2 * 1.5 * 7/8 = 5.25
        ((1, 8), 2, "tpu", RaggedAllToAll(1.5, Exact())),
        ((1, 8), 6, "tpu", Ragged()),  # 14 against 15.75
        ((2, 4), 2, "gpu", RaggedAllToAll(1.5, Exact())),  # 6 against 4.5
        ((1, 8), 0, "tpu", Ragged()),  # no token choice
    ],
)
def test_the_choice(mesh, K, platform, want):
    with jax.set_mesh(mesh_of(*mesh)):
        assert Auto().choose(K, platform).dispatch == want


def test_without_a_mesh_rows_are_sorted():
    assert Auto().choose(2, "cpu").dispatch == Ragged()


def test_what_counts_is_the_platform_compiled_for():
    # Eight cores of a TPU that is not there, on a machine where JAX finds CPUs only: rows travel
    # by the exchange that TPUs have, and CPUs have not.
    plan = Choices(jnp.zeros((8, 2), jnp.int32), jnp.ones((8, 2)))
    for kind, platform, want in (
        ("TPU v5 lite", "tpu", RaggedAllToAll(1.5, Exact())),
        ("cpu", "cpu", AllToAll(1.5, Exact())),
    ):
        device = jax.sharding.AbstractDevice(device_kind=kind, num_cores=1, platform=platform)
        there = jax.sharding.AbstractMesh((8,), ("expert",), abstract_device=device)
        with jax.sharding.use_abstract_mesh(there):
            assert Auto()._chosen(plan) == want
    with jax.set_mesh(mesh_of(1, 8)):
        assert Auto()._chosen(plan) == AllToAll(1.5, Exact())


def test_it_says_once_what_it_takes(capsys):
    auto._say.cache_clear()
    plan = Choices(jnp.zeros((4, 1), jnp.int32), jnp.ones((4, 1)))
    experts = SwiGLU(4)
    params = experts.init(jax.random.key(0), 2, 4)
    for _ in range(2):
        Auto()(plan, jnp.ones((4, 4)), Pool(params, experts, 2))
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith("dispatch auto: Ragged(")


def test_show_explains_it():
    sheet = arm_sheet("dense_topk_hash", "top2", "tiny", ["model.moe.dispatch=auto"])
    assert "dispatch: auto takes Ragged(" in sheet.splitlines()[-1]
    plain = arm_sheet("dense_topk_hash", "top2", "tiny", [])
    assert "auto" not in plain.splitlines()[-1]


def test_an_impossible_room_is_named():
    with pytest.raises(ValueError, match="^d.room=0: must be a number > 0$"):
        check_fields(Auto(0), "d")
