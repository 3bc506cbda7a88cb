"""Collectives read from HLO text, and training steps compiled for TPU slices."""

import os
import pathlib
import subprocess
import sys

import pytest

from moe import environment
from moe.cost import compiled
from moe.cost.compiled import Collective
from moe.training import ahead

ROOT = pathlib.Path(__file__).parents[2]
HLO = """
HloModule jit_step

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%body.1 (p: (s32[], f32[8,16])) -> (s32[], f32[8,16]) {
  %x = f32[8,16]{1,0} all-reduce(%p.1), replica_groups={{0,1},{2,3}}, to_apply=%add
  %y = (bf16[4,2]{1,0}, /*index=1*/bf16[4,2]{1,0}) all-to-all(%p.2, %p.3), replica_groups=[2,2]<=[2,2]T(1,0)
}

%condition.1 (p: (s32[], f32[8,16])) -> pred[] {
  ROOT %less = pred[] compare(%p, %c), direction=LT
}

ENTRY %main (p0: f32[8,16]) -> f32[8,16] {
  %w = (s32[], f32[8,16]) while(%t), condition=%condition.1, body=%body.1, backend_config={"known_trip_count":{"n":"6"}}
  %g = f32[32]{0} all-gather(%q), replica_groups=mesh['axis_0'=2,'axis_1'=2] {'axis_0'}, dimensions={0}
  %h = (f32[8]{0}, f32[32]{0}) all-gather-start(%q), replica_groups=[1,4]<=[4], dimensions={0}
  %i = f32[32]{0} all-gather-done(%h)
  %alone = f32[7]{0} all-reduce(%q), replica_groups={{0},{1},{2},{3}}, to_apply=%add
}
"""  # noqa: E501


def test_collectives_are_counted_with_the_loops_that_run_them():
    # The body runs 6 times: 8 * 16 floats, and 2 * 8 halves. A device alone exchanges nothing.
    assert sorted(compiled.collectives(HLO), key=str) == sorted(
        [
            Collective("all-reduce", "f32[8,16]", (0, 1), 6, 6 * 512),
            Collective("all-to-all", "bf16[4,2]", (0, 2), 6, 6 * 32),
            Collective("all-gather", "f32[32]", (0, 2), 1, 128),
            Collective("all-gather", "f32[32]", (0, 1, 2, 3), 1, 128),
        ],
        key=str,
    )
    assert compiled.table(compiled.collectives(HLO)) == {
        "all-gather": (2, 256),
        "all-reduce": (6, 3072),
        "all-to-all": (6, 192),
    }


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("v9:2x2", "no such TPU"),
        ("v5e", "must be a TPU and a shape, as in v5e:4x4"),
        ("v5e:4", "must be a TPU and a shape, as in v5e:4x4"),
        ("v5e:0x4", "must be a TPU and a shape, as in v5e:4x4"),
        ("v5e:4x4x4x4", "must be a TPU and a shape, as in v5e:4x4"),
        ("v5e:4x4", "needs libtpu; make install WITH=tpu"),
    ],
)
def test_what_cannot_be_compiled_for_is_one_line(target, line, monkeypatch):
    monkeypatch.setattr(ahead.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=f"^--compile-for={target}: {line}"):
        ahead.slice_devices(target)


@pytest.mark.parametrize(("there", "wrong"), [("0.0.42.7", False), ("0.0.50.1", True)])
def test_a_libtpu_that_jax_does_not_ask_for_is_refused(there, wrong, monkeypatch):
    # JAX 0.10.2 asks for 0.0.42.*; with a newer one a grouped product of 16 experts takes 16 times
    # the FLOPs.
    packages = {"libtpu": there, "jax": "0.10.2"}
    asks = ["numpy>=2.0", 'libtpu==0.0.42.*; extra == "tpu"', 'requests; extra == "tpu"']
    monkeypatch.setattr(environment.importlib.metadata, "version", packages.__getitem__)
    monkeypatch.setattr(environment.importlib.metadata, "requires", lambda name: asks)
    line = environment.wrong_libtpu()
    assert (line is not None) == wrong
    if wrong:
        assert line == (
            "libtpu 0.0.50.1 is installed, JAX 0.10.2 asks for 0.0.42.*; "
            "pip install jax[tpu]==0.10.2"
        )
        monkeypatch.setattr(ahead.importlib.util, "find_spec", lambda name: name)
        with pytest.raises(ValueError, match="^--compile-for=v5e:4x4: libtpu 0.0.50.1 is"):
            ahead.slice_devices("v5e:4x4")


def show(*words):
    """What `show` prints, in a process of its own: libtpu settles what JAX is."""
    return subprocess.run(
        [sys.executable, "-m", "experiments", "show", *words],
        cwd=ROOT, capture_output=True, text=True, timeout=900,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"},
    )  # fmt: skip


@pytest.mark.tpu
@pytest.mark.skipif(ahead.importlib.util.find_spec("libtpu") is None, reason="needs libtpu")
@pytest.mark.parametrize(
    ("arm", "fields", "kinds"),
    [
        ("dense", [], {"all-reduce"}),
        (
            "top2",
            ["model.moe.dispatch=einsum", "model.moe.dispatch.group_size=128"],
            {"all-to-all"},
        ),
        ("top2", [], {"all-gather", "reduce-scatter"}),
        ("top2", ["model.moe.dispatch=all_to_all"], {"all-to-all"}),
        ("top2", ["model.moe.dispatch=auto", "model.moe.dispatch.room=1"], {"ragged-all-to-all"}),
    ],
)
def test_a_step_compiles_for_a_slice_that_is_not_there(arm, fields, kinds):
    sets = [f"--set={field}" for field in [*fields, "allow_noncausal=true"]]
    words = [f"dense_topk_hash/{arm}", "--mesh=data:2,expert:4", "--compile-for=v5e:2x4", *sets]
    done = show(*words)
    assert done.returncode == 0, done.stderr
    assert "8 devices, --mesh=data:2,expert:4" in done.stdout and ": fits" in done.stdout
    assert all(f"    {kind} " in done.stdout for kind in kinds), done.stdout
    wrong = show(*words[:1], "--mesh=data:4", "--compile-for=v5e:2x4")
    assert wrong.returncode == 2 and "needs 4 devices, 8 are there; nearest" in wrong.stderr
