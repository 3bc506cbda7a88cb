"""What tests of dispatchers share: meshes of fake devices, and one group served on them."""

import jax

from moe.dispatch.parallel import serve


def mesh_of(data, expert):
    """A mesh of the first data x expert devices."""
    auto = (jax.sharding.AxisType.Auto,) * 2
    devices = jax.devices()[: data * expert]
    return jax.make_mesh((data, expert), ("data", "expert"), axis_types=auto, devices=devices)


def served(dispatch, plan, x_TD, pool):
    """What a layer does with one group of tokens, on the mesh in use or without one."""
    return serve(dispatch, plan, x_TD, pool, 1)
