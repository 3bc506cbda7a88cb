"""What no memory holds is refused before it compiles, and told in one line where it fails later."""

import dataclasses
import types

import jax
import numpy as np
import pytest

from experiments.results.folder import Task
from experiments.runner import memory
from experiments.runner.mistakes import is_mistake, line
from moe import files
from moe.cost.memory import in_training
from moe.devices.mesh import Mesh, planned
from moe.registry import Mistake
from tests.training.test_train import experiment


def task(arm, tmp_path, **model):
    whole = experiment()
    return Task(
        "s",
        "tiny",
        arm,
        dataclasses.replace(whole, model=whole.model.clone(**model)),
        (0,),
        tmp_path,
    )


def asked(*tasks):
    return sum(sum(in_training(one.experiment).values()) for one in tasks)


def test_a_run_is_refused_one_byte_above_what_is_free(tmp_path, monkeypatch):
    one = task("dense", tmp_path)
    monkeypatch.setattr(memory, "free", lambda: asked(one))
    memory.check([one], 1, None)
    monkeypatch.setattr(memory, "free", lambda: asked(one) - 1)
    with pytest.raises(Mistake, match="^memory: training dense takes about 0.0 GB .parameters 0.0"):
        memory.check([one], 1, None)
    monkeypatch.setattr(memory, "free", lambda: None)  # a system that does not say
    memory.check([one], 1, None)


def test_runs_side_by_side_share_what_is_free(tmp_path, monkeypatch):
    tasks = [task(arm, tmp_path) for arm in ("a", "b", "c")]
    monkeypatch.setattr(memory, "free", lambda: asked(*tasks[:2]))
    memory.check(tasks, 2, None)
    with pytest.raises(Mistake, match="^memory: 3 runs at the same time .*lower --jobs, .*ignore$"):
        memory.check(tasks, 3, None)


def test_what_to_lower_is_what_is_large(tmp_path, monkeypatch):
    """Activations grow with the batch, the rest with the model: 16 bytes a parameter."""
    monkeypatch.setattr(memory, "free", lambda: 10**9)
    wide = task("wide", tmp_path, model_width=2**20)
    with pytest.raises(Mistake, match="lower model.model_width, model.num_layers or the number of"):
        memory.check([wide], 1, None)
    long = task("long", tmp_path)
    train = dataclasses.replace(long.experiment.train, batch=2**20)
    long = dataclasses.replace(long, experiment=dataclasses.replace(long.experiment, train=train))
    with pytest.raises(Mistake, match="lower train.batch or data.sequence_length, raise train.acc"):
        memory.check([long], 1, None)


def test_what_a_mesh_splits_counts_once_on_a_cpu_and_by_its_share_on_an_accelerator(
    tmp_path, monkeypatch
):
    """Eight devices of one CPU hold eight shares in the same memory; a chip holds its own."""
    one, mesh = task("dense", tmp_path), Mesh(data=2, fsdp=2, tensor=2)
    with planned(mesh):
        share = asked(one)
    assert asked(one) / 8 < share < asked(one)  # weights are split over four, gathered ones kept
    monkeypatch.setattr(memory, "free", lambda: 8 * share)
    memory.check([one], 1, mesh)
    monkeypatch.setattr(memory, "free", lambda: 8 * share - 1)
    with pytest.raises(Mistake, match="are free on this machine"):
        memory.check([one], 1, mesh)
    chip = types.SimpleNamespace(platform="gpu", memory_stats=lambda: {"bytes_limit": share})
    monkeypatch.setattr(jax, "local_devices", lambda: [chip])
    memory.check([one], 1, mesh)
    with pytest.raises(Mistake, match="are free on each device"):
        memory.check([one], 1, None)
    chip.memory_stats = lambda: None  # a driver that does not say
    memory.check([one], 1, None)


def test_a_control_group_leaves_less_than_the_machine(tmp_path):
    """1000 allowed, 700 used of which 200 are files that are given back: 500 are left."""
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 200\n")
    assert memory._of_groups(tmp_path, "") == [500]
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "memory.max").write_text("max\n")
    (tmp_path / "below" / "memory.current").write_text("1\n")
    (tmp_path / "below" / "memory.stat").write_text("inactive_file 0\n")
    assert memory._of_groups(tmp_path, "below") == [500]
    assert 0 < memory.free() < 2**60


def test_a_machine_that_says_nothing_refuses_nothing(monkeypatch):
    def unreadable(path):
        raise files.Unreadable(path, "cannot be read")

    monkeypatch.setattr(memory.files, "text", unreadable)
    assert memory.free() is None


def test_running_out_later_is_one_line_with_the_bytes(tmp_path):
    """Of XLA, of numpy, and of Python itself; another error of XLA is a bug."""
    xla = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 512 bytes.\nx")
    with pytest.raises(MemoryError) as numpy:
        np.zeros((2**30, 2**20))
    for error, text in (
        (xla, "RESOURCE_EXHAUSTED: Out of memory allocating 512 bytes. x"),
        (numpy.value, "Unable to allocate 8.00 PiB for an array with shape"),  # 2**50 x 8 bytes
        (MemoryError(), "the system gave none"),
    ):
        assert is_mistake(error)
        assert line(error).startswith(f"out of memory: {text}") and "\n" not in line(error)
        assert "; lower train.batch or" in line(error) and line(error).endswith("resumes")
    assert not is_mistake(jax.errors.JaxRuntimeError("INTERNAL: a bug"))
