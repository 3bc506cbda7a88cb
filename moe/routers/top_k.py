"""Softmax top-k token choice (Shazeer et al. 2017, arXiv 1701.06538; Switch, arXiv 2101.03961)."""

import dataclasses

import jax
import jax.numpy as jnp

from moe import losses
from moe.routing import Choices, Router, Routing, check_choices


@dataclasses.dataclass(frozen=True)
class TopK(Router):
    """Each token goes to the k experts of highest probability, p = softmax(x w).

    Attributes:
      k: experts per token, in [1, num_experts].
      renormalize: divide the k gates by their sum. Never done at k = 1, where the gate would be
        the constant 1 and the router would get no gradient.
      load_balance: weight of the load-balance loss (1 at balance for every k).
      z_loss: weight of the router z-loss (arXiv 2202.08906).
      init_scale: router weights start with standard deviation init_scale / sqrt(D).
    """

    k: int = 2
    renormalize: bool = True
    load_balance: float = 0.01
    z_loss: float = 0.001
    init_scale: float = 1.0

    def init(self, key, D, E, V):
        """Makes w_DE in float32."""
        del V
        return {"w_DE": jax.random.normal(key, (D, E)) * (self.init_scale / D**0.5)}

    def __call__(self, params, x_TD, id_T, E, rng):
        """Routes x_TD; ties go to the lowest expert index."""
        del id_T, rng
        T = x_TD.shape[0]
        logits_TE = jnp.einsum(
            "TD,DE->TE", x_TD.astype(jnp.float32), params["w_DE"], precision="highest"
        )
        probability_TE = jax.nn.softmax(logits_TE)
        gate_TK, expert_TK = jax.lax.top_k(probability_TE, self.k)
        if self.renormalize and self.k > 1:
            gate_TK = gate_TK / gate_TK.sum(axis=1, keepdims=True)
        plan = Choices(expert_TK.astype(jnp.int32), gate_TK)
        balance = losses.load_balance(
            plan.assigned_TE(T, E).sum(axis=0), probability_TE.sum(axis=0), T
        )
        z = losses.z_loss_sum(logits_TE) / T
        return Routing(
            plan,
            losses={"load_balance": self.load_balance * balance, "z_loss": self.z_loss * z},
            metrics={
                "load_balance": balance,
                "z_loss": z,
                "confidence": probability_TE.max(axis=1).mean(),
            },
        )

    def choices(self, E):
        """k."""
        del E
        return self.k

    def check(self, path, num_experts):
        """Raises ValueError unless 1 <= k <= num_experts and the weights are not negative."""
        check_choices(path, self.k, num_experts)
        for name in ("load_balance", "z_loss", "init_scale"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ValueError(f"{path}.{name}={value}: must be a number >= 0")


SWITCH = TopK(k=1, renormalize=False, load_balance=0.01, z_loss=0.0)
