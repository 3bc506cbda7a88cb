"""Runs of rows that travel between devices, every pair of devices its own number of them.

`lax.ragged_all_to_all`, with its gradient: the same exchange in the other direction. XLA has none
for CPU; there every device gathers all rows and takes its own, so that tests cover the offsets.
"""

import functools

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax

from moe.kernels.contract import vary_like


@flax.struct.dataclass
class Traffic:
    """What every device of an axis sends to every other: row is the sender, column the receiver.

    Attributes (int32, the same on all devices):
      start_PP: the first row of each run among the rows of its sender.
      place_PP: the row at which it arrives.
      count_PP: its rows.
    """

    start_PP: jax.Array
    place_PP: jax.Array
    count_PP: jax.Array

    @property
    def back(self) -> "Traffic":
        """The same runs on their way home."""
        return Traffic(self.place_PP.T, self.start_PP.T, self.count_PP.T)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def exchange(x_RD: jax.Array, traffic: Traffic, rows: int, axis: str) -> jax.Array:
    """The rows that arrive on this device, `rows` in all, 0 where none does; in `shard_map`."""
    return lax.platform_dependent(
        x_RD,
        traffic,
        cpu=functools.partial(_gathered, rows=rows, axis=axis),
        default=functools.partial(_native, rows=rows, axis=axis),
    )


def _forward(x_RD, traffic, rows, axis):
    return exchange(x_RD, traffic, rows, axis), (traffic, x_RD.shape[0])


def _backward(rows, axis, residuals, dy_RD):
    traffic, sent = residuals
    return exchange(dy_RD, traffic.back, sent, axis), None


exchange.defvjp(_forward, _backward)


def _native(x_RD, traffic, rows, axis):
    mine = lax.axis_index(axis)
    empty_RD = vary_like(jnp.zeros((rows, x_RD.shape[1]), x_RD.dtype), x_RD)
    return lax.ragged_all_to_all(
        x_RD,
        empty_RD,
        traffic.start_PP[mine],
        traffic.count_PP[mine],
        traffic.place_PP[mine],
        traffic.count_PP[:, mine],
        axis_name=axis,
    )


def _gathered(x_RD, traffic, rows, axis):
    mine = lax.axis_index(axis)
    x_PRD = lax.all_gather(x_RD, axis)
    offset_PR = jnp.arange(rows)[None] - traffic.place_PP[:, mine, None]
    there_PR = (offset_PR >= 0) & (offset_PR < traffic.count_PP[:, mine, None])
    sender_R = jnp.argmax(there_PR, axis=0)
    row_PR = traffic.start_PP[:, mine, None] + offset_PR
    row_R = jnp.take_along_axis(row_PR, sender_R[None], axis=0)[0]
    return jnp.where(there_PR.any(axis=0)[:, None], x_PRD[sender_R, row_R], 0)
