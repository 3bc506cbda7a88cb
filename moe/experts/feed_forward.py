"""Feed-forward networks as experts; a dense feed-forward layer is one with E = 1."""

import dataclasses
from typing import Annotated, ClassVar

import jax

from moe.experts.contract import Experts, batched_product
from moe.fields import AtLeast


def _dense_init(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Normal with standard deviation 1/sqrt(fan in); fan in is the next to last axis.

    w_out has no 1 / sqrt(2 N) of the depth, which attention has; see `Attention.init`.
    """
    return jax.random.normal(key, shape) / shape[-2] ** 0.5


@dataclasses.dataclass(frozen=True)
class SwiGLU(Experts):
    """(silu(x w_gate) * (x w_in)) w_out, three matrices (arXiv 2002.05202, eq. 6).

    Attributes:
      width: hidden width F of one expert.
    """

    width: Annotated[int, AtLeast(1)] = 256
    matrices: ClassVar[int] = 3

    def init(self, key, E, D):
        """Makes w_gate_EDF, w_in_EDF and w_out_EFD."""
        keys = jax.random.split(key, 3)
        return {
            "w_gate_EDF": _dense_init(keys[0], (E, D, self.width)),
            "w_in_EDF": _dense_init(keys[1], (E, D, self.width)),
            "w_out_EFD": _dense_init(keys[2], (E, self.width, D)),
        }

    def __call__(self, params, x, product=batched_product):
        """Applies the experts; computes in the dtype of x."""
        gate, up, down = (
            params[name].astype(x.dtype) for name in ("w_gate_EDF", "w_in_EDF", "w_out_EFD")
        )
        return product(jax.nn.silu(product(x, gate)) * product(x, up), down)


@dataclasses.dataclass(frozen=True)
class ReLU(Experts):
    """relu(x w_in) w_out, two matrices, as in Switch (arXiv 2101.03961).

    Attributes:
      width: hidden width F of one expert.
    """

    width: Annotated[int, AtLeast(1)] = 256
    matrices: ClassVar[int] = 2

    def init(self, key, E, D):
        """Makes w_in_EDF and w_out_EFD."""
        keys = jax.random.split(key, 2)
        return {
            "w_in_EDF": _dense_init(keys[0], (E, D, self.width)) * 2**0.5,
            "w_out_EFD": _dense_init(keys[1], (E, self.width, D)),
        }

    def __call__(self, params, x, product=batched_product):
        """Applies the experts; computes in the dtype of x."""
        w_in, w_out = (params[name].astype(x.dtype) for name in ("w_in_EDF", "w_out_EFD"))
        return product(jax.nn.relu(product(x, w_in)), w_out)
