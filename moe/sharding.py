"""The mesh in use: its axes, and over which of them a batch and the experts are split.

Axes are "data", "fsdp", "expert" and "tensor"; any may be missing or of size 1. A mesh is put in
use by `jax.set_mesh`.
"""

import math

import jax

BATCH_AXES = ("data", "fsdp", "expert")  # a batch is split over all of these
EXPERT_AXIS = "expert"


def sizes() -> dict[str, int]:
    """Axis -> devices along it, of the mesh in use; empty without one."""
    return dict(jax.sharding.get_abstract_mesh().shape)


def batch_axes() -> tuple[str, ...]:
    """The axes of the mesh in use over which a batch is split."""
    return tuple(axis for axis in BATCH_AXES if axis in sizes())


def batch_parts() -> int:
    """Into how many parts the mesh in use splits a batch."""
    return math.prod(sizes()[axis] for axis in batch_axes())
