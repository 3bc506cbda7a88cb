"""Over which axes of the mesh in use an array is split, read off the letters that end its name.

Axes are "data", "fsdp", "expert" and "tensor"; any may be missing, which is the same as size 1. A
mesh is put in use by `jax.set_mesh` (`mesh.py` makes one). Without one nothing here does anything,
so the same code runs on one device.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from moe.params import Size, letters, map_named
from moe.registry import Mistake

DATA, FSDP, EXPERT, TENSOR = AXES = ("data", "fsdp", "expert", "tensor")
BATCH_AXES = (DATA, FSDP, EXPERT)  # a batch is split over all of these
TABLE = {
    "B": BATCH_AXES,  # sequences, and what they become in an MoE layer: groups or tokens
    "G": BATCH_AXES,
    "T": BATCH_AXES,
    "E": (EXPERT,),
    "F": (TENSOR,),
    "H": (TENSOR,),
    "J": (TENSOR,),
    "V": (TENSOR,),
    "D": (FSDP,),
}


def sizes() -> dict[str, int]:
    """Axis -> devices along it, of the mesh in use; empty without one."""
    return dict(jax.sharding.get_abstract_mesh().shape)


def undivided(parts: Iterable[Size], axes: Mapping[str, int]) -> str | None:
    """The first size that these axes do not divide into equal parts, in one line; None if none.

    Args:
      axes: devices along each axis; one that is missing has one.
    """
    for what, letter, size in parts:
        over = math.prod(axes.get(axis, 1) for axis in TABLE[letter])
        if size % over:
            return f"{what} must be divisible by {' * '.join(TABLE[letter])}={over}"
    return None


def check(parts: Iterable[Size]) -> None:
    """Raises Mistake where the mesh in use does not divide one of these.

    Under `shard_map` outputs are summed over the parts of a width, so one that lies whole would
    count several times. Parts of a batch are left out: each call has a batch of its own.
    """
    fixed = [part for part in parts if TABLE[part.letter] != BATCH_AXES]
    if reason := undivided(fixed, sizes()):
        raise Mistake(reason)


def platform() -> str:
    """What code is compiled for: the devices of the mesh in use, or those of this process.

    They differ where a program is compiled ahead of time, for devices that are not there.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def in_words() -> str | None:
    """The mesh in use, as `--mesh` names it; None without one."""
    return ",".join(f"{axis}:{n}" for axis, n in sizes().items()) or None


def inside() -> tuple[str, ...]:
    """The axes over which this code runs device by device: those of a `jax.shard_map` around it."""
    return tuple(jax.sharding.get_abstract_mesh().manual_axes)


def batch_axes() -> tuple[str, ...]:
    """The axes of the mesh in use over which a batch is split."""
    return tuple(axis for axis in BATCH_AXES if axis in sizes())


def batch_parts() -> int:
    """Into how many parts the mesh in use splits a batch."""
    return math.prod(sizes()[axis] for axis in batch_axes())


def spec(letters: str, shape: tuple[int, ...], without: tuple[str, ...] = ()) -> jax.P:
    """The PartitionSpec of an array by its letters, one for each of its last axes.

    Axes before those (the layers that a scan stacks) are not split. A mesh axis serves the first
    letter that asks for it. A letter whose size its axes do not divide stays whole: `mesh.py`
    has refused the meshes where that would matter; what remains are key/value heads fewer than
    `tensor`, and networks with E = 1.

    Args:
      without: mesh axes that are not used.
    """
    there, used = sizes(), set(without)
    parts: list = [None] * (len(shape) - len(letters))
    for letter, size in zip(letters, shape[len(parts) :], strict=True):
        axes = tuple(a for a in TABLE.get(letter, ()) if a in there and a not in used)
        if size % math.prod(there[a] for a in axes):
            axes = ()
        used |= set(axes)
        parts.append(axes if len(axes) > 1 else axes[0] if axes else None)
    return jax.P(*parts)


def specs(tree: Any, without: tuple[str, ...] = ()) -> Any:
    """The PartitionSpec of every array of a tree, by the last name on its path.

    Optimizer slots have the names of their parameters. A name without letters stays whole.
    """

    def of(name, leaf):
        found = letters(name)
        return spec(found, leaf.shape, without) if found else jax.P()

    return map_named(of, tree)


def constrain(array: jax.Array, letters: str) -> jax.Array:
    """Splits an activation by its letters; for code outside of `jax.shard_map`."""
    if not sizes() or inside():
        return array
    return jax.lax.with_sharding_constraint(array, spec(letters, array.shape))


def gathered(params: Any) -> Any:
    """Parameters as a layer uses them: collected over the fsdp axis, still split over the others.

    The gradient goes the other way, so it is summed over the devices that share the parameters.
    """
    if FSDP not in sizes() or inside():
        return params
    return jax.lax.with_sharding_constraint(params, specs(params, without=(FSDP,)))


def stored(tree: Any) -> Any:
    """A state as it is kept between steps: every array split by its name."""
    return jax.lax.with_sharding_constraint(tree, specs(tree)) if sizes() else tree


def everywhere(tree: Any) -> Any:
    """The same values on every device, for what the host reads."""
    if not sizes():
        return tree
    return jax.lax.with_sharding_constraint(tree, jax.tree.map(lambda _: jax.P(), tree))


def by_row(function: Callable[[jax.Array], jax.Array], rows_TX: jax.Array) -> jax.Array:
    """function(rows) of rows that do not need each other, computed where each row lies.

    For what the compiler would first gather all rows for, as XLA does for top-k. The function
    keeps the number of rows; it is not differentiated.
    """
    if not sizes() or inside():
        return function(rows_TX)

    @jax.custom_batching.custom_vmap
    def split(rows_TX):
        if rows_TX.shape[0] % batch_parts():
            return function(rows_TX)
        part = jax.P(batch_axes())
        return jax.shard_map(function, in_specs=part, out_specs=part)(rows_TX)

    @split.def_vmap
    def over_groups(size, batched, rows_GTX):
        del size, batched
        G, T, X = rows_GTX.shape
        return split(rows_GTX.reshape(G * T, X)).reshape(G, T, -1), True

    return split(rows_TX)


def place(function: Callable[..., Any], *args: Any) -> Any:
    """What `function`, compiled, makes of the arguments, split by names: never whole anywhere."""
    if not sizes():
        return jax.jit(function)(*args)
    return jax.jit(function, out_shardings=specs(jax.eval_shape(function, *args)))(*args)


def put(tree: Any) -> Any:
    """Arrays that every process holds whole, split by names."""
    return jax.device_put(tree, specs(tree)) if sizes() else tree


def of_rows() -> jax.NamedSharding | None:
    """Where the rows of a batch lie on the mesh in use; None without one."""
    if not sizes():
        return None
    return jax.NamedSharding(jax.sharding.get_mesh(), jax.P(batch_axes()))


def rows(batch: int) -> np.ndarray | None:
    """Which rows of a batch the devices of this process hold; None in a single process."""
    split = of_rows()
    if jax.process_count() == 1 or split is None:
        return None
    parts = split.addressable_devices_indices_map((batch,)).values()
    return np.unique(np.concatenate([np.arange(batch)[index] for index in parts]))


def put_batch(batch: Any, size: int) -> Any:
    """Rows in the host's memory, spread over the mesh in use; arrays of devices stay.

    Args:
      batch: arrays with a leading axis of all `size` rows, or of those that `rows` names.
    """
    split, own = of_rows(), rows(size)
    if split is None:
        return batch

    def put_leaf(leaf):
        if isinstance(leaf, jax.Array):
            return leaf
        there: Any = np.arange(size) if len(leaf) == size else own

        def read(index):
            return leaf[np.searchsorted(there, np.arange(size)[index[0]])]

        return jax.make_array_from_callback((size, *leaf.shape[1:]), split, read)

    return jax.tree.map(put_leaf, batch)
