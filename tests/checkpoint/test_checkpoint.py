"""Checkpoints: what is kept, and whose they are."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe.checkpoint import format, history, restore
from moe.checkpoint.checksum import checksums
from moe.checkpoint.format import FORMAT, Identity
from tests.fakes.states import ABSTRACT, MINE, flip, restored, same, state, steps, written

# What orbax leaves unfinished when a file is damaged is nobody's to await.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def test_a_state_comes_back_bit_for_bit(three, tmp_path):
    (step, found), lines = restored(three)
    assert step == 20 and lines == []
    same(found, state(20))
    assert restored(tmp_path) == (None, [])


@pytest.mark.parametrize(
    ("losses", "kept"),
    [
        # The latest and the best two stay: the trap of orbax, which keeps [1, 3] here.
        ([5.0, 1.0, 3.0, 2.0, 4.0], [0, 1, 3, 4]),
        ([5.0, 3.0, float("nan")], [0, 1, 2]),  # a NaN is never the best
        ([5.0, float("inf"), float("nan"), None], [0, 3]),
        ([None, None, None], [0, 2]),  # not evaluated: only the latest
        ([1.0, 2.0, 2.0, 3.0], [0, 1, 3]),  # ties go to the earlier
    ],
)
def test_the_latest_the_best_and_step_0_are_kept(losses, kept, tmp_path):
    assert written(tmp_path, dict(enumerate(losses)), keep_last=1, keep_best=2) == kept


def test_the_best_is_known_after_a_restart(tmp_path):
    written(tmp_path, {0: None, 1: 1.0, 2: 3.0}, keep_last=1)
    assert written(tmp_path, {3: 4.0, 4: 2.0}, keep_last=1) == [0, 1, 4]


def test_plain_files_named_like_what_a_kill_leaves_are_cleared(tmp_path):
    """A folder of that name could not be removed as one, at every start again."""
    for name in ("4.orbax-checkpoint-tmp-1", "4.deleted", "3.deleted"):
        (tmp_path / name).write_text("x")
    (tmp_path / "5.deleted").symlink_to(tmp_path.parent)  # only the link goes
    assert written(tmp_path, {3: 1.0, 4: 2.0, 5: 3.0}, keep_last=1, keep_best=0) == [5]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["5"] and tmp_path.is_dir()


def test_a_step_is_saved_once(tmp_path):
    folder = history.Checkpoints(tmp_path, MINE)
    folder.save(3, state(3))
    folder.save(3, state(4))
    folder.close()
    same(restored(tmp_path)[0][1], state(3))


def test_a_state_that_is_not_finite_is_not_saved(tmp_path):
    folder = history.Checkpoints(tmp_path, MINE)
    folder.save(1, state(1))
    bad = state(2)
    bad["params"]["w_AB"] = bad["params"]["w_AB"].at[3, 4].set(jnp.nan)
    with pytest.raises(FloatingPointError, match="^params/w_AB is not finite at step 2: .*1 is ke"):
        folder.save(2, bad)
    folder.close()
    assert steps(tmp_path) == [1]


@pytest.mark.parametrize(
    ("other", "line"),
    [
        (Identity("another", "data-1", "bpe-1"), "holds checkpoints of another experiment; "),
        (Identity("text", "data-2", "bpe-1"), r"of another data \(data-1 there, data-2 here\); "),
        (Identity("text", "data-1", "bpe-2"), r"another tokenizer \(bpe-1 there, bpe-2 here\); "),
    ],
)
def test_checkpoints_of_another_owner_are_refused(three, other, line):
    with pytest.raises(ValueError, match=line):
        restored(three, other)
    assert steps(three) == [0, 10, 20]


def test_a_state_of_another_program_is_refused(three):
    folder = history.Checkpoints(three, MINE)
    wider = {**ABSTRACT, "flag": jax.ShapeDtypeStruct((3,), jnp.bool_)}
    with pytest.raises(ValueError, match=r"20: flag is \[\[2\], 'bool'\] there, \[\[3\], 'bool'\]"):
        folder.restore(wider)
    with pytest.raises(ValueError, match="20: more is absent there, .* in this program"):
        folder.restore({**ABSTRACT, "more": jax.ShapeDtypeStruct((), jnp.float32)})
    folder.close()


def test_another_format_is_refused(three, tmp_path, monkeypatch):
    shutil.copytree(three, tmp_path / "a")
    (tmp_path / "a/20/record").rename(tmp_path / "a/20/experiment")  # as format 1 had it
    with pytest.raises(ValueError, match="20: format=1: this version reads format 2; "):
        restored(tmp_path / "a")
    monkeypatch.setattr(format, "FORMAT", FORMAT + 1)
    with pytest.raises(ValueError, match="20: format=2: this version reads format 3; "):
        restored(three)


def test_parameters_alone(three, tmp_path):
    same(restore.restore_params(three), state(20)["params"])
    same(restore.restore_params(three, 0), state(0)["params"])
    written(tmp_path, {0: None, 10: 2.0, 20: 3.0})
    same(restore.restore_params(tmp_path, "best"), state(10)["params"])
    with pytest.raises(ValueError, match=r"step=7: no such checkpoint \(valid: 0, 10, 20\)"):
        restore.restore_params(tmp_path, 7)
    with pytest.raises(ValueError, match=r"step=newest: no such checkpoint \(valid: none\)"):
        restore.restore_params(tmp_path / "none")
    flip(tmp_path / "20")
    with pytest.raises(ValueError, match="damaged .* name another step"):
        restore.restore_params(tmp_path)


def test_checksums_see_every_bit_and_every_place():
    a = np.arange(12, dtype=np.float32).reshape(3, 4)
    whole = checksums({"a": jnp.asarray(a)})[0]["a"]
    for bit in range(32):
        flipped = (a.view(np.uint32) ^ np.uint32((np.arange(12) == 7).reshape(3, 4) << bit)).view(
            np.float32
        )
        assert checksums({"a": jnp.asarray(flipped)})[0]["a"] != whole
    assert checksums({"a": jnp.asarray(a[::-1].copy())})[0]["a"] != whole
    assert checksums({"a": jnp.array([1.0, jnp.inf]), "b": jnp.ones(1)})[1] == ["a"]


@pytest.mark.multi_device
def test_checksums_do_not_depend_on_the_mesh():
    a = jnp.asarray(np.random.default_rng(0).normal(size=(8, 6)), jnp.bfloat16)
    mesh = jax.make_mesh((4, 2), ("data", "expert"))
    spread = jax.device_put(a, jax.NamedSharding(mesh, jax.P("data", "expert")))
    assert checksums([spread]) == checksums([a])
