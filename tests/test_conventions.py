"""Conventions of other systems against arithmetic by hand, and the document against the code."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe.convert import conventions
from moe.plan import capacity
from moe.routers.parts import losses

TEXT = (pathlib.Path(__file__).parent.parent / "docs" / "conventions.md").read_text("utf-8")

# Coefficient 0.01 with E = 8, K = 2 and 4 MoE layers: value at balance times layers if added.
WEIGHT = {
    "ours": 0.01,
    "switch": 0.04,  # 1 * 4
    "huggingface": 0.02,  # K = 2, one number for the model
    "huggingface_switch": 0.01,
    "megatron": 0.04,
    "megatron_sequence": 0.04,
    "megatron_global": 0.04,
    "megablocks": 0.01,
    "olmo_core": 0.01,
    "deepspeed_top2": 0.04,
    "deepspeed_topk": 0.04,
    "fairscale": 0.000625,  # 1/64 * 4
    "deepseek": 0.04,
    "maxtext": 0.02,
    "flaxformer": 0.02,
    "vmoe": 0.04,
    "levanter": 0.02,  # 1/2 * 4
    "axlearn": 0.01,
}

# T = 100, K = 2, E = 8, factor 1.25: T K / E = 25, times 1.25 = 31.25; T / E = 12.5, 15.625.
SLOTS = {
    "ours": 32,
    "megatron": 32,
    "megablocks": 31,
    "olmo_core": 32,  # 31 to the next multiple of 8
    "deepspeed": 32,
    "tutel": 32,  # 2 * floor(1.25 * 13 = 16.25)
    "fastmoe": 31,  # 125 * 2 // 8
    "lucidrains": 15,
    "vmoe": 32,
    "maxtext": 31,
    "flaxformer": 16,  # round(15.625)
    "praxis": 16,  # 15 to the next multiple of 4
    "axlearn": 15,
}


def rows(heading):
    """The cells of the table below a heading of the document, without its two header lines."""
    section = TEXT.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"\s\|\s", f" {line[1:-1]} ")] for line in lines[2:]]


@pytest.mark.parametrize(("system", "want"), WEIGHT.items())
def test_weights(system, want):
    got = conventions.load_balance_weight(system, 0.01, 8, 2, 4)
    np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize(("system", "want"), SLOTS.items())
def test_slots(system, want):
    assert conventions.slots(system, 1.25, 100, 8, 2) == want


def test_every_system_is_tested():
    assert WEIGHT.keys() == conventions.LOAD_BALANCE.keys()
    assert SLOTS.keys() == conventions.CAPACITY.keys()


@pytest.mark.parametrize("system", conventions.CAPACITY)
def test_our_factor_gives_as_many_slots(system):
    for T, E, K, factor in [(100, 8, 2, 1.25), (96, 6, 1, 1.1), (4096, 64, 8, 2.0), (7, 3, 2, 1.7)]:
        found = conventions.slots(system, factor, T, E, K)
        ours = conventions.capacity_factor(system, factor, T, E, K)
        assert capacity(ours, T, K, E) == min(found, T), (T, E, K, factor)


def test_limits_of_slots():
    # 4 tokens, 8 experts, 1 choice: 0.5 assignments each.
    assert conventions.slots("megablocks", 1.0, 4, 8, 1) == 4  # floor 0 means no limit: T
    assert conventions.slots("deepspeed", 1.0, 4, 8, 1) == 4
    assert conventions.slots("flaxformer", 1.0, 4, 8, 1) == 4
    assert conventions.slots("lucidrains", 1.0, 4, 8, 1) == 4
    assert conventions.slots("maxtext", 1.5, 4, 8, 1) == 1  # floor(1.5 * 1)


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (
            lambda: conventions.load_balance_weight("megatrn", 0.01, 8, 2, 4),
            "system=megatrn: no such system; did you mean 'megatron'? (valid: "
            + ", ".join(sorted(conventions.LOAD_BALANCE))
            + ")",
        ),
        (
            lambda: conventions.capacity_factor("huggingface", 1.0, 8, 4, 1),
            "system=huggingface: no such system (valid: "
            + ", ".join(sorted(conventions.CAPACITY))
            + ")",
        ),
        (
            lambda: conventions.load_balance_weight("ours", -1.0, 8, 2, 4),
            "conventions.coefficient=-1.0: must be a number >= 0",
        ),
        (
            lambda: conventions.slots("ours", 0.0, 8, 4, 1),
            "conventions.capacity_factor=0.0: must be a number > 0",
        ),
        (
            lambda: conventions.capacity_factor("axlearn", 1.0, 4, 8, 1),
            "conventions.capacity_factor=1.0: axlearn gives 0 slots at T=4",
        ),
    ],
    ids=["weight", "factor", "coefficient", "zero", "no slots"],
)
def test_one_clear_line(call, line):
    with pytest.raises(ValueError) as error:
        call()
    assert str(error.value) == line


def test_pooled_loss_is_blind_to_collapse_that_cancels():
    # 4 layers, 8 experts, K = 2, 16 tokens; layer n sends all to experts 2n and 2n + 1 with
    # probability 1/2 each. Own loss: 8 * (1/2 * 1/2 + 1/2 * 1/2) = 4. Pooled: every expert has
    # 16 of 4 * 16 token places, f = 1/4, and P = 8 / 64 = 1/8: 8 * 8 * 1/4 * 1/8 = 2 = K.
    count_NE = 16 * jnp.repeat(jnp.eye(4), 2, axis=1)
    own_N = jax.vmap(lambda c: losses.load_balance(c, c / 2, 16))(count_NE)
    np.testing.assert_allclose(own_N, 4, rtol=1e-6)
    np.testing.assert_allclose(
        conventions.pooled_load_balance(count_NE, count_NE / 2, 16), 2, rtol=1e-6
    )


def test_pooled_loss_of_one_layer_is_k_times_ours():
    # f of ours (1/2, 1/4, 1/4), P = (1/2, 1/3, 1/6): 3 * (1/4 + 1/12 + 1/24) = 9/8; K = 2: 9/4.
    count_E, probability_E = jnp.array([6.0, 3, 3]), jnp.array([3.0, 2, 1])
    np.testing.assert_allclose(losses.load_balance(count_E, probability_E, 6), 9 / 8, rtol=1e-6)
    pooled = conventions.pooled_load_balance(count_E[None], probability_E[None], 6)
    np.testing.assert_allclose(pooled, 9 / 4, rtol=1e-6)


def test_pooled_counts_carry_no_gradient():
    grad = jax.grad(conventions.pooled_load_balance)(jnp.ones((2, 3)), jnp.ones((2, 3)), 3)
    np.testing.assert_array_equal(grad, 0)


def test_the_document_has_the_losses():
    want = []
    for name, row in conventions.LOAD_BALANCE.items():
        value = conventions.BALANCED[row.balanced](8, 2)
        weight = conventions.load_balance_weight(name, 0.01, 8, 2, 4)
        cells = [name, row.balanced, f"{value:.6g}", row.over_layers, row.counts, row.scope]
        want.append([*cells, f"{weight:.6g}", row.source])
    assert rows("Load-balance loss") == want, table(want)


def test_the_document_has_the_slots():
    want = []
    for name, row in conventions.CAPACITY.items():
        found = conventions.slots(name, 1.25, 100, 8, 2)
        factor = conventions.capacity_factor(name, 1.25, 100, 8, 2)
        want.append([name, row.formula, str(found), f"{factor:.6g}", row.source])
    assert rows("Capacity factor") == want, table(want)


def table(want):
    return "\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in want)
