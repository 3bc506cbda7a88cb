"""What a grouped matrix product takes and returns, whichever kernel computes it."""

import dataclasses
from typing import ClassVar, Protocol

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax


@dataclasses.dataclass(frozen=True)
class MultipleOf:
    """A range of tiles: a unit, two units, ..."""

    unit: int

    def allows(self, value: int) -> bool:
        """Whether the value is in the range."""
        return value >= self.unit and value % self.unit == 0

    def rule(self, kind: type) -> str:
        """What stands after "must be"."""
        del kind
        return f"a multiple of {self.unit}"


@dataclasses.dataclass(frozen=True)
class PowerOfTwo:
    """A range of tiles: low, 2 low, 4 low, ..., up to `high` if there is one."""

    low: int
    high: float = float("inf")

    def allows(self, value: int) -> bool:
        """Whether the value is in the range."""
        return self.low <= value <= self.high and value & (value - 1) == 0

    def rule(self, kind: type) -> str:
        """What stands after "must be"."""
        del kind
        most = "" if self.high == float("inf") else f", <= {self.high}"
        return f"a power of 2, >= {self.low}{most}"


class Kernel(Protocol):
    """Multiplies rows by the matrix of their expert; a frozen dataclass of tile sizes.

    Sizes are data: a new load compiles nothing. What stands in rows past the last group, NaN
    included, changes neither other rows nor weight gradients.
    """

    kind: ClassVar[str] = "kernel"

    def padding(self, R: int) -> int:
        """Rows of zeros that must follow R rows."""
        ...

    def computed(self, groups: "Groups") -> jax.Array:
        """Rows that are multiplied, those that fill up a tile included."""
        ...

    def product(
        self, groups: "Groups", x_RD: jax.Array, w_EDF: jax.Array, contract: int
    ) -> jax.Array:
        """Rows times the matrix of their expert, contracting its axis `contract` (0 or 1).

        Rows past the last group come out finite if they went in finite.
        """
        ...

    def weight_gradient(self, groups: "Groups", x_RD: jax.Array, dy_RF: jax.Array) -> jax.Array:
        """dw_EDF, for each expert the sum over its rows of x_r^T dy_r."""
        ...

    def check(self, path: str) -> None:
        """Raises Mistake, one line that starts with `path`, for fields that do not go together."""
        del path


@flax.struct.dataclass
class Groups:
    """Whose rows are whose, for rows sorted by expert, and what multiplies them.

    Attributes:
      size_E: rows of each expert (int32), in turn from row 0; their sum may be less than the rows.
      rows: R, padding not counted (static).
      kernel: what multiplies (static).
    """

    size_E: jax.Array
    rows: int = flax.struct.field(pytree_node=False)
    kernel: Kernel = flax.struct.field(pytree_node=False)

    @property
    def start_E(self) -> jax.Array:
        """First row of each expert."""
        return jnp.cumsum(self.size_E) - self.size_E

    @property
    def padding(self) -> int:
        """Rows of zeros that must follow the last row of a buffer."""
        return self.kernel.padding(self.rows)

    @property
    def computed(self) -> jax.Array:
        """Rows that are multiplied, those that fill up a tile included."""
        return self.kernel.computed(self)


def vary_like(a: jax.Array, other: jax.Array) -> jax.Array:
    """The array, differing between devices wherever the other one does (inside `shard_map`)."""
    wanted, has = (jax.typeof(b).manual_axis_type.varying for b in (other, a))
    missing = tuple(wanted - has)
    return lax.pcast(a, missing, to="varying") if missing else a


def like(shape: tuple[int, ...], other: jax.Array) -> jax.ShapeDtypeStruct:
    """The type of an output of a Pallas kernel with the dtype and devices of the other array."""
    varying = jax.typeof(other).manual_axis_type
    return jax.ShapeDtypeStruct(shape, other.dtype, manual_axis_type=varying)
