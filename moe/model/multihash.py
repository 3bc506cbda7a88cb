"""MultiHash: K hashes put a feed-forward network together from parts (arXiv 2106.04426).

v = relu([A^1_{h1} x, ..., A^K_{hK} x]) and y = [B^1_{h1} v, ..., B^K_{hK} v]: each hash picks one
K-th of the first matrix' columns and, reading all of v, one K-th of the outputs. As experts of a
plan, choice k of a token lies in the k-th of K equal blocks of experts.
"""

import dataclasses
from typing import Annotated, cast

import jax
import jax.numpy as jnp

from moe.dispatch import parallel
from moe.dispatch.contract import Dispatch, no_drops
from moe.dispatch.rows import take_rows
from moe.experts.contract import Experts, Pool, batched_product
from moe.experts.feed_forward import ReLU
from moe.fields import AtLeast
from moe.kernels.blocked import Blocked
from moe.kernels.contract import Groups
from moe.kernels.grouped import PerPlatform, grouped_product
from moe.model.layer import MoE
from moe.order import sort_choices
from moe.params import Params, Size
from moe.plan import Choices
from moe.registry import Mistake
from moe.routers.contract import Router
from moe.routers.hash import Hash
from moe.routers.parts.tables import BlockTable


@dataclasses.dataclass(frozen=True)
class Parts(Dispatch):
    """Applies the parts of each hash in turn, once to x and once to v; drops nothing.

    Attributes:
      block: rows that are multiplied at once, as long as a part has so many.
    """

    block: int

    def __call__(self, plan, x_TD, pool):
        """Computes y_TD."""
        assert isinstance(plan, Choices)  # of a hash: `check` sees to it
        (T, D), E, K = x_TD.shape, pool.E, plan.expert_TK.shape[1]
        if D % K:
            raise Mistake(f"model.model_width={D}: must be divisible by router.k={K} (multihash)")
        weights = jax.tree.map(lambda w: w.astype(x_TD.dtype), pool.params)

        def of_block(k, rows, w):
            part = slice(k * E // K, (k + 1) * E // K)
            own = Choices(plan.expert_TK[:, k : k + 1] - part.start, plan.gate_TK[:, k : k + 1])
            return _apply(own, rows, w[part], self.block)

        v = [jax.nn.relu(of_block(k, x_TD, weights["w_in_EDF"])) for k in range(K)]
        v_TU = jnp.concatenate(v, axis=1)
        y = [of_block(k, v_TU, weights["w_out_EUP"]) for k in range(K)]
        return jnp.concatenate(y, axis=1), no_drops(plan, T, E)


@dataclasses.dataclass(frozen=True)
class MultiHash(MoE):
    """An MoE layer whose experts are parts; `dispatch` is not used, nothing is dropped.

    Parameters and FLOPs are those of `num_experts` ReLU experts, k of which serve a token.

    Attributes:
      num_experts: parts, all K blocks together; divisible by router.k.
      router: a hash layer with a BlockTable; its gates are not used, as in the paper.
      experts: gives the width of one part; its activation is always ReLU.
      block: rows that are multiplied at once, as long as a part has so many.
    """

    num_experts: Annotated[int, AtLeast(1)] = 16
    router: Router = Hash(k=2, table=BlockTable())
    experts: Experts = ReLU()
    block: Annotated[int, AtLeast(1)] = 256

    def initializers(self, D, V):
        """Replaces the experts' weights by w_in_EDF and w_out_EUP, U = K F and P = D / K."""
        return {**super().initializers(D, V), "experts": lambda key: self._init_parts(key, D)}

    def _init_parts(self, key: jax.Array, D: int) -> Params:
        E, F, K = self.num_experts, self.experts.width, cast(Hash, self.router).k
        keys = jax.random.split(key)
        return {
            "w_in_EDF": jax.random.normal(keys[0], (E, D, F)) * (2 / D) ** 0.5,
            "w_out_EUP": jax.random.normal(keys[1], (E, K * F, D // K)) / (K * F) ** 0.5,
        }

    def serve(self, params, plan, x, groups):
        """Applies the parts, on every device to its own tokens."""
        pool = Pool(params, self.experts, self.num_experts)
        return parallel.serve(Parts(self.block), plan, x, pool, groups)

    def serves_in_order(self, tokens, devices):
        """Always: nothing is dropped."""
        del tokens, devices
        return True

    def sizes(self, path, tokens):
        """Beside those of MoE without its dispatcher's: experts stay in one part."""
        what = f"{path}={type(self).__name__}: the one part of its experts"
        own = [size for size in super().sizes(path, tokens) if size.letter != "G"]
        return (*own, Size(what, "E", 1), Size(what, "F", 1))

    def check(self, path, tokens):
        """Raises Mistake unless the router deals into blocks, beside what MoE checks."""
        super().check(path, tokens)
        router = self.router
        if not (isinstance(router, Hash) and isinstance(router.table, BlockTable)):
            raise Mistake(f"{path}.router: must be a hash with table=block in a multihash layer")
        if self.num_experts % router.k:
            raise Mistake(
                f"{path}.num_experts={self.num_experts}: must be divisible by router.k={router.k}"
            )
        if self.null is not None:
            raise Mistake(f"{path}.null: must be none in a multihash layer")
        if self.gate_norm:
            raise Mistake(f"{path}.gate_norm=True: must be False in a multihash layer: no gates")


def _apply(plan: Choices, x_TA: jax.Array, w_EAO: jax.Array, block: int) -> jax.Array:
    """Row t times the matrix of its one expert."""
    T, E = x_TA.shape[0], w_EAO.shape[0]
    if E == 1:
        return batched_product(x_TA[None], w_EAO)[0]
    order = sort_choices(plan, E)
    groups = Groups(order.size_E, T, PerPlatform(other=Blocked(block, min(64, block))))
    token_R = jnp.pad(order.token_R, (0, groups.padding), constant_values=T)
    x_RA = take_rows(x_TA, token_R, order.row_TK)
    y_RO = grouped_product(groups, x_RA, w_EAO)[:T]
    # Back to the order of tokens: the inverse permutation, whose gradient is the permutation.
    return take_rows(y_RO, order.row_TK[:, 0], order.token_R[:, None])
