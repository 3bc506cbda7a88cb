"""The benchmarks of dispatchers: their rows, plans, files and mistakes; no time is asserted."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.bench import cases, groups, layer
from experiments.bench.cases import Shape

ONE = Shape(T=32, D=8, F=6, E=4, k=2)


@pytest.mark.slow
def test_every_dispatcher_is_timed_beside_its_twin(tmp_path, capsys):
    rows = layer.layer([ONE], ["uniform", "one"], repeats=2, directory=tmp_path)
    mechanisms = {row["mechanism"] for row in rows if row["skew"] == "one"}
    assert mechanisms == {"matmul", "dense", "einsum", "gather", "ragged"}
    by_name = {(row["mechanism"], row["skew"]): row for row in rows}
    for row in rows:
        assert row["forward_s"] > 0 and row["both_s"] > 0 and row["shape"] == list(ONE)
        np.testing.assert_allclose(
            row["gflops"], 3 * 2 * 3 * 32 * 2 * 8 * 6 / row["both_s"] / 1e9, rtol=1e-6
        )
    assert by_name["matmul", "one"]["peak"] == 1 == by_name["dense", "one"]["ratio"]
    # Expert 0 is the first choice of all 32 tokens and has ceil(1.25 * 64 / 4) = 20 slots.
    assert by_name["gather", "one"]["drop_rate"] >= 12 / 64
    assert by_name["ragged", "one"]["drop_rate"] == 0
    assert json.loads((tmp_path / "layer.json").read_text()) == rows
    assert (tmp_path / "layer.png").stat().st_size > 1000
    assert "T=32 D=8 F=6 E=4 k=2, load one" in capsys.readouterr().out


@pytest.mark.slow
def test_groups_cost_flops_and_save_drops(tmp_path, capsys):
    one = Shape(T=256, D=16, F=64, E=8, k=2)
    rows = groups.groups(one, (32, 128, 512), repeats=2, directory=tmp_path)
    small, large = rows  # 512 tokens are not there
    # 2 * 128 / (3 * 64); beyond it only making the masks, 2 * 128 * 8 * 32 FLOPs and more.
    np.testing.assert_allclose(large["law"], 4 / 3)
    assert large["law"] <= large["flops"] < 1.5 * large["law"]
    assert small["flops"] < large["flops"] and small["ratio"] > 0
    for skew in ("uniform", "zipf"):
        assert small["drop_rate"][skew]["1"] > large["drop_rate"][skew]["1"] > 0
        assert large["drop_rate"][skew]["1"] > large["drop_rate"][skew]["2"]
    assert json.loads((tmp_path / "groups.json").read_text()) == rows
    assert (tmp_path / "groups.png").stat().st_size > 1000
    assert "T=256 D=16 F=64 E=8 k=2" in capsys.readouterr().out


@pytest.mark.slow
def test_sixteen_bits_are_timed_as_such(capsys):
    rows = layer.layer([Shape(16, 8, 6, 4, 2)], ["zipf"], repeats=1, dtype="bf16")
    assert {row["dtype"] for row in rows} == {"bfloat16"} and "bfloat16" in capsys.readouterr().out
    # The dense layer's gradients alone: three matrices of 8 x 12 and 16 tokens of 8, of 2 bytes.
    assert next(r for r in rows if r["mechanism"] == "dense")["temp_bytes"] >= 2 * (3 * 96 + 128)


def test_plans_are_skewed_as_they_say():
    def load(skew, one=ONE):
        return np.bincount(np.ravel(cases.make_plan(one, skew).expert_TK), minlength=one.E)

    assert load("one")[0] == 32 and load("empty")[[1, 3]].sum() == 0
    wide = Shape(4096, 8, 6, 16, 2)
    uniform, zipf = load("uniform", wide), load("zipf", wide)
    assert uniform.max() < 1.2 * uniform.mean() and zipf.max() > 3 * zipf.mean()
    plan = cases.make_plan(ONE, "uniform")
    assert bool(jnp.all(plan.expert_TK[:, 0] != plan.expert_TK[:, 1]))


def test_the_default_shapes_are_those_of_the_readme():
    assert cases.shape("4096,512,2048,8,2") == layer.SHAPES[0]
    # Two FLOPs, three matrices, 4096 tokens of 2 experts, 512 x 2048.
    assert layer.SHAPES[0].flops == 2 * 3 * 4096 * 2 * 512 * 2048


@pytest.mark.parametrize("text", ["1,2,3", "a,b,c,d,e", "1,2,3,4,5", "4,0,2,2,1", ""])
def test_impossible_shapes_are_one_line(text):
    with pytest.raises(ValueError, match=f"^--shape={text}: must be .*T,D,F,E,k"):
        cases.shape(text)
