"""The grouped matrix product with its gradients, on the kernel that suits the platform."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from moe.kernels.blocked import Blocked
from moe.kernels.contract import Groups, Kernel, vary_like
from moe.kernels.mosaic import Mosaic
from moe.kernels.triton import Triton


@dataclasses.dataclass(frozen=True)
class PerPlatform(Kernel):
    """One kernel for each platform, chosen where a program is lowered, not where it is traced.

    So compiling for an accelerator ahead of time, on a machine without one, gets its kernel.

    Attributes:
      cuda: on NVIDIA GPUs.
      tpu: on TPUs.
      other: on CPUs and all else.
    """

    cuda: Kernel = Triton()
    tpu: Kernel = Mosaic()
    other: Kernel = Blocked()

    def padding(self, R):
        """As many as the most demanding one wants: shapes are the same on every platform."""
        return max(kernel.padding(R) for kernel in (self.cuda, self.tpu, self.other))

    def _choose(self, function, *arrays):
        """function(kernel, *arrays) with the kernel of the platform."""

        def of(kernel):
            return lambda *arrays: function(kernel, *arrays)

        return lax.platform_dependent(
            *arrays, cuda=of(self.cuda), tpu=of(self.tpu), default=of(self.other)
        )

    def computed(self, groups):
        """Rows that are multiplied."""
        return self._choose(lambda kernel, groups: kernel.computed(groups), groups)

    def product(self, groups, x_RD, w_EDF, contract):
        """The grouped product."""
        return self._choose(
            lambda kernel, *arrays: kernel.product(*arrays, contract), groups, x_RD, w_EDF
        )

    def weight_gradient(self, groups, x_RD, dy_RF):
        """The gradient of the weights."""
        return self._choose(
            lambda kernel, *arrays: kernel.weight_gradient(*arrays), groups, x_RD, dy_RF
        )

    def check(self, path):
        """Raises Mistake for impossible fields of any of them."""
        for name in ("cuda", "tpu", "other"):
            getattr(self, name).check(f"{path}.{name}")


def grouped_product(groups: Groups, x_RD: jax.Array, w_EDF: jax.Array) -> jax.Array:
    """Row r of expert e becomes x_r w_e; returns y_RF.

    x_RD ends in `groups.padding` rows that belong to nobody; what comes out in the place of rows
    past the last group has no meaning. Gradients with respect to x_RD and w_EDF.
    """
    groups = dataclasses.replace(groups, size_E=vary_like(groups.size_E.astype(jnp.int32), x_RD))
    return _grouped(groups, x_RD, vary_like(w_EDF, x_RD))


@jax.custom_vjp
def _grouped(groups, x_RD, w_EDF):
    return groups.kernel.product(groups, x_RD, w_EDF, 0)


def _forward(groups, x_RD, w_EDF):
    return groups.kernel.product(groups, x_RD, w_EDF, 0), (groups, x_RD, w_EDF)


def _backward(residuals, dy_RF):
    groups, x_RD, w_EDF = residuals
    dx_RD = groups.kernel.product(groups, dy_RF, w_EDF, 1)
    return None, dx_RD, groups.kernel.weight_gradient(groups, x_RD, dy_RF)


_grouped.defvjp(_forward, _backward)
