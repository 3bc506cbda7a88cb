"""Every way of damage to a checkpoint is seen and survived."""

import pathlib
import re
import shutil

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from orbax.checkpoint.args import PyTreeSave

from moe.checkpoint import history
from tests.fakes.states import MINE, files, flip, restored, same, seal, state, steps, written

# What orbax leaves unfinished when a file is damaged is nobody's to await.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def cut(path, share, name="*"):
    for file in files(path):
        if file.match(name):
            file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])


def remove(path, name):
    found = list(path.rglob(name))
    assert found
    for file in found:
        shutil.rmtree(file) if file.is_dir() else file.unlink()


def record(path, change):
    """Changes the text of the record."""
    file = path / "record/metadata"
    changed = change(file.read_text())
    assert changed != file.read_text()
    file.write_text(changed)


def from_another(path, what):
    """Takes a part from the checkpoint before."""
    remove(path, what)
    source = path.with_name("10") / what
    (shutil.copytree if source.is_dir() else shutil.copy)(source, path / what)


def lying(path):
    """A record with a wrong checksum, among files that are what was written."""
    record(path, lambda text: re.sub(r'"sum": (\d+)', r'"sum": 1\1', text))
    seal(path)


def resaved(path, without=None, **changed):
    """The arrays of a program that saves other leaves."""
    tree = {k: v for k, v in state(20).items() if k != without}
    tree |= {k: jnp.zeros(size, jnp.bool_) for k, size in changed.items()}
    shutil.rmtree(path / "state")
    checkpointer = ocp.Checkpointer(ocp.CompositeCheckpointHandler())
    checkpointer.save(path.with_name("other"), args=ocp.args.Composite(state=PyTreeSave(tree)))
    (path.with_name("other") / "state").rename(path / "state")
    shutil.rmtree(path.with_name("other"))


DAMAGE = {
    "empty folder": lambda p: (shutil.rmtree(p), p.mkdir()),
    "a file in its place": lambda p: (shutil.rmtree(p), p.write_text("x")),
    "no arrays": lambda p: shutil.rmtree(p / "state"),
    "no record": lambda p: shutil.rmtree(p / "record"),
    "record deleted": lambda p: (p / "record/metadata").unlink(),
    "record empty": lambda p: (p / "record/metadata").write_text(""),
    "record cut off": lambda p: cut(p, 0.5, "record/metadata"),
    "record of garbage": lambda p: (p / "record/metadata").write_bytes(bytes(range(256))),
    "record a list": lambda p: (p / "record/metadata").write_text("[1, 2]"),
    "record without fields": lambda p: (p / "record/metadata").write_text("{}"),
    "record with another step": lambda p: record(p, lambda t: t.replace('"step": 20', '"step":21')),
    "record with another text": lambda p: record(p, lambda t: t.replace('"text"', '"tent"')),
    "record with another format": lambda p: record(p, lambda t: t.replace('mat": 2', 'mat": 3')),
    "record without a leaf": lambda p: record(p, lambda t: t.replace("params/w_AB", "params/w_AC")),
    "record of another checkpoint": lambda p: from_another(p, "record"),
    "a wrong checksum": lying,
    "arrays of another checkpoint": lambda p: from_another(p, "state"),
    "one bit flipped": flip,
    "first bit flipped": lambda p: flip(p, 0.0, 0),
    "largest file cut off": lambda p: cut(p, 0.5, files(p)[0].name),
    "largest file cut off near its end": lambda p: cut(p, 0.97, files(p)[0].name),
    "largest file empty": lambda p: cut(p, 0, files(p)[0].name),
    "largest file zeroed": lambda p: files(p)[0].write_bytes(bytes(files(p)[0].stat().st_size)),
    "largest file deleted": lambda p: files(p)[0].unlink(),
    "largest file longer at its front": lambda p: files(p)[0].write_bytes(
        b"x" + files(p)[0].read_bytes()
    ),
    "every file empty": lambda p: cut(p, 0),
    "every file cut off": lambda p: cut(p, 0.5),
    "half of the files deleted": lambda p: [file.unlink() for file in files(p)[::2]],
    "no data": lambda p: remove(p / "state", "d"),
    "no manifest": lambda p: remove(p / "state", "manifest.ocdbt"),
    "manifest of garbage": lambda p: (p / "state/manifest.ocdbt").write_bytes(b"garbage" * 20),
    "metadata of garbage": lambda p: (p / "state/_METADATA").write_text("{garbage"),
    "a leaf missing": lambda p: (resaved(p, without="flag"), seal(p)),
    "a leaf of another shape": lambda p: (resaved(p, flag=3), seal(p)),
    "no seal": lambda p: (p / "files.json").unlink(),
    "seal empty": lambda p: (p / "files.json").write_text(""),
    "seal of nothing": lambda p: (p / "files.json").write_text("{}"),
    "seal a list": lambda p: (p / "files.json").write_text("[1]"),
    "seal of garbage": lambda p: (p / "files.json").write_bytes(bytes(range(256))),
    "last bit flipped": lambda p: flip(p, 0.999999, 7),
    "largest file cut off by a byte": lambda p: cut(p, 0.99999, files(p)[0].name),
    "sharding deleted": lambda p: remove(p, "_sharding"),
    "a link to nowhere": lambda p: (shutil.rmtree(p), p.symlink_to(p.with_name("nowhere"))),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_damage_is_named_and_the_checkpoint_before_is_used(how, three, tmp_path):
    shutil.copytree(three, tmp_path, dirs_exist_ok=True)
    DAMAGE[how](tmp_path / "20")
    (step, found), lines = restored(tmp_path)
    assert step == 10
    same(found, state(10))
    assert len(lines) == 2 and not any("\n" in line for line in lines)
    assert lines[0].startswith(f"{tmp_path / '20'}: damaged (")
    assert lines[0].endswith("; kept as 20.damaged")
    assert lines[1] == f"{tmp_path}: goes on from step 10"
    # The damaged one is out of the way and still there; its step can be saved again.
    assert steps(tmp_path) == [0, 10]
    assert (tmp_path / "20.damaged").exists() or (tmp_path / "20.damaged").is_symlink()
    written(tmp_path, {20: 1.0})
    assert restored(tmp_path)[0][0] == 20


def test_random_damage_never_gives_a_wrong_state(three, tmp_path):
    """One bit flipped, or a file cut off, anywhere: it is seen."""
    random = np.random.default_rng(0)
    for n in range(40):
        directory = tmp_path / str(n)
        shutil.copytree(three, directory)
        file = random.choice(files(directory / "20"))
        content = bytearray(file.read_bytes())
        at, how = random.integers(len(content)), random.integers(4)
        content[at] ^= 1 << random.integers(8)
        file.write_bytes(content[:at] if how == 0 else content)
        (step, found), lines = restored(directory)
        assert (step, len(lines)) == (10, 2), (file, at, how)
        same(found, state(10))


def test_two_damaged_ones_and_a_name_that_is_taken(three, tmp_path):
    shutil.copytree(three, tmp_path, dirs_exist_ok=True)
    (tmp_path / "20.damaged").mkdir()
    flip(tmp_path / "20")
    shutil.rmtree(tmp_path / "10/state")
    (step, _), lines = restored(tmp_path)
    assert step == 0 and len(lines) == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "0", "10.damaged", "20.damaged", "20.damaged-2",
    ]  # fmt: skip


def test_when_all_are_damaged_nothing_is_changed(three, tmp_path):
    shutil.copytree(three, tmp_path, dirs_exist_ok=True)
    for step in (0, 10, 20):
        flip(tmp_path / str(step))
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    with pytest.raises(ValueError, match="no checkpoint can be used .20: .*; 10: .*; 0: .*ged; re"):
        restored(tmp_path)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


def test_what_a_kill_left_half_done_is_cleared(three, tmp_path):
    shutil.copytree(three, tmp_path, dirs_exist_ok=True)
    (tmp_path / "30.orbax-checkpoint-tmp-1").mkdir()
    (tmp_path / "5.deleted").mkdir()
    (tmp_path / "5.deleted/x").write_text("x")
    assert restored(tmp_path)[0][0] == 20
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0", "10", "20"]


def test_a_disk_without_room_stops_with_one_line(tmp_path):
    resource = pytest.importorskip("resource")
    folder = history.Checkpoints(tmp_path, MINE)
    folder.save(1, state(1))
    folder.wait()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # w_AB alone has 77 kB
    try:
        with pytest.raises(OSError, match="2: could not be saved .*; checkpoint 1 is kept; the sa"):
            folder.save(2, state(2))
            folder.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    folder.close()
    (step, found), _ = restored(tmp_path)
    assert step == 1 and sorted(p.name for p in tmp_path.iterdir()) == ["1"]
    same(found, state(1))


def test_a_path_with_spaces(tmp_path):
    assert written(pathlib.Path(tmp_path / "a b" / "c d"), {1: None}) == [1]
    assert restored(tmp_path / "a b" / "c d")[0][0] == 1
