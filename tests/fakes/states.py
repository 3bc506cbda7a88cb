"""A small state and the checkpoints of it that tests make, damage and read."""

import jax
import jax.numpy as jnp
import numpy as np

from moe.checkpoint import format, history, places
from moe.checkpoint.format import Identity

MINE = Identity("text", "data-1", "bpe-1")


def state(step):
    """Arrays of several types, large and incompressible enough for files of their own."""
    random = np.random.default_rng(step)
    return {
        "step": jnp.int32(step),
        "params": {
            "w_AB": jnp.asarray(random.normal(size=(64, 300)).astype(np.float32)),
            "state": {"table_V": jnp.asarray(random.integers(8, size=2000, dtype=np.int32))},
            "none": {},
        },
        "opt_state": ({"mu_B": jnp.asarray(random.normal(size=300), jnp.bfloat16)}, ()),
        "flag": jnp.array([True, False]),
    }


ABSTRACT = history.abstract(state(0))


def steps(directory):
    return places.at(directory).steps()


def seal(path):
    format.seal(places.at(path.parent), path.name)


def same(one, two):
    jax.tree.map(np.testing.assert_array_equal, one, two)
    assert jax.tree.map(lambda a: a.dtype, one) == jax.tree.map(lambda a: a.dtype, two)


def written(directory, losses, **kept):
    """Saves a state at each step with its loss."""
    folder = history.Checkpoints(directory, MINE, **kept)
    for step, loss in losses.items():
        folder.save(step, state(step), loss)
    folder.close()
    return steps(directory)


def restored(directory, identity=MINE):
    lines = []
    folder = history.Checkpoints(directory, identity, say=lines.append)
    try:
        return folder.restore(ABSTRACT), lines
    finally:
        folder.close()


def files(path):
    """The files of a checkpoint that hold its content, largest first."""
    found = [p for p in path.rglob("*") if p.is_file() and p.stat().st_size]
    found = [p for p in found if p.name not in format._LATER]
    return sorted(found, key=lambda p: (-p.stat().st_size, str(p)))


def flip(path, where=0.5, bit=3):
    """Flips one bit of the largest file."""
    file = files(path)[0]
    content = bytearray(file.read_bytes())
    content[int(where * len(content))] ^= 1 << bit
    file.write_bytes(content)
