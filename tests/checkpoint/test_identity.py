"""Whose a checkpoint is: the classes and fields of its experiment, not where the classes lay."""

import jax.numpy as jnp
import pytest

from moe import fields
from moe.checkpoint import history
from moe.checkpoint.format import Identity

STATE = {"step": jnp.int32(7)}
THEN = (
    "from moe.experts import SwiGLU\n\nExperiment(\n    ffn=SwiGLU(\n        width=8,\n    ),\n)\n"
)
NOW = THEN.replace("moe.experts", "moe.experts.feed_forward")


def restored(directory, text):
    folder = history.Checkpoints(directory, Identity(text))
    try:
        return folder.restore(history.abstract(STATE))
    finally:
        folder.close()


@pytest.fixture
def saved(tmp_path):
    folder = history.Checkpoints(tmp_path, Identity(THEN))
    folder.save(7, STATE)
    folder.close()
    return tmp_path


def test_a_class_that_moved_is_the_same_one(saved):
    assert restored(saved, NOW)[0] == 7


@pytest.mark.parametrize("change", [("width=8", "width=9"), ("SwiGLU(", "ReLU(")])
def test_another_field_or_class_is_another_experiment(saved, change):
    with pytest.raises(ValueError, match="holds checkpoints of another experiment; "):
        restored(saved, NOW.replace(*change))


def test_how_often_a_run_is_looked_at_is_no_part_of_it():
    text = (
        "a\n\nExperiment(\n    train=Train(\n        eval_every=250,\n        steps=5,\n    ),\n)\n"
    )
    assert fields.identity(text) == fields.identity(text.replace("eval_every=250", "eval_every=50"))
    assert fields.identity(text) != fields.identity(text.replace("steps=5", "steps=6"))


def test_a_younger_field_at_its_first_value_is_no_part_of_it():
    now = "a\n\nEinsum(\n    capacity_factor=1.0,\n    priority=ChoiceMajor(),\n)\n"
    then = now.replace("    priority=ChoiceMajor(),\n", "")
    assert fields.identity(now) == fields.identity(then)
    assert fields.identity(now.replace("Choice", "Token")) != fields.identity(then)
    allowed = "a\n\nExperiment(\n    allow_noncausal=False,\n)\n"
    assert fields.identity(allowed) == fields.identity(allowed.replace("False", "True"))
