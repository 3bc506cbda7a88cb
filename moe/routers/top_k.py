"""Top-k token choice (Shazeer et al. 2017, arXiv 1701.06538), of which many models are settings.

One product x w, one score, one choice. What systems do in different orders and with different
constants are fields here; the router's arithmetic is float32 throughout.
"""

import dataclasses
from typing import Annotated, Literal

import jax
import jax.numpy as jnp

from moe.fields import AtLeast
from moe.params import Params, named, state, with_state
from moe.plan import Choices
from moe.registry import Mistake
from moe.routers.contract import Router, Routing, check_choices
from moe.routers.parts.losses import Losses
from moe.routers.parts.noise import Noise, NoNoise
from moe.routers.parts.ranking import choose, init_matrix, largest, product, take
from moe.routers.parts.scores import Score, Softmax


@dataclasses.dataclass(frozen=True)
class Logits:
    """Router logits of T tokens: as they are, as noise moved them, and how wide the noise is."""

    clean_TE: jax.Array
    noisy_TE: jax.Array
    deviation_TE: jax.Array | None


@dataclasses.dataclass(frozen=True)
class TopK(Router):
    """Each token goes to the k experts of highest score.

    Attributes:
      k: experts per token, in [1, num_experts].
      score: softmax, sigmoid or sqrt_softplus of the logits x w.
      order: score all experts and then choose, or choose k logits and then score those alone.
      renormalize: divide the k gates by their sum. Never done at k = 1, where the gate would be
        the constant 1 and the router would get no gradient.
      epsilon: added to that sum, in units of its largest score, so that low scores keep theirs.
      scale: factor of the gates, after renormalisation.
      groups: experts are cut into so many groups of neighbours (DeepSeek-V2, arXiv 2405.04434).
      groups_kept: groups that a token may choose from; all others are -inf.
      group_score: what ranks groups: their best score, or the sum of their best two.
      noise: at training only.
      losses: auxiliary losses and their scope.
      init_scale: router weights start with standard deviation init_scale / sqrt(D).
    """

    k: int = 2
    score: Score = Softmax()
    order: Literal["score_first", "choose_first"] = "score_first"
    renormalize: bool = True
    epsilon: Annotated[float, AtLeast(0)] = 0.0
    scale: Annotated[float, AtLeast(0)] = 1.0
    groups: int = 1
    groups_kept: int = 1
    group_score: Literal["max", "top2_sum"] = "max"
    noise: Noise = NoNoise()
    losses: Losses = Losses()
    init_scale: Annotated[float, AtLeast(0)] = 1.0

    def init(self, key, D, E, V):
        """Makes w_DE, and what noise and an adaptive loss weight need, in float32."""
        del V
        params = {"w_DE": init_matrix(key, D, E, self.init_scale)}
        params |= self.noise.init(D, E)
        if self.losses.adaptive is not None:
            params = with_state(params, log_weight=jnp.zeros(()))
        return params

    def weights(self, params: Params, rng: jax.Array | None) -> jax.Array:
        """The router matrix w_DE in use."""
        del rng
        return params["w_DE"]

    def compare(self, params: Params, x_TD: jax.Array, rng: jax.Array | None) -> jax.Array:
        """Logits of every token and expert: x w."""
        return product(x_TD, self.weights(params, rng))

    def logits(self, params: Params, x_TD: jax.Array, rng: jax.Array | None) -> Logits:
        """Logits with and without noise; without any when rng is None."""
        x_TD = x_TD.astype(jnp.float32)
        if rng is None:
            clean_TE = self.compare(params, x_TD, None)
            return Logits(clean_TE, clean_TE, None)
        x_TD = self.noise.perturb_input(x_TD, named(rng, "input noise"))
        clean_TE = self.compare(params, x_TD, rng)
        deviation_TE = self.noise.deviation(params, x_TD, clean_TE.shape[1])
        logits_rng = named(rng, "logit noise")
        noisy_TE = self.noise.perturb_logits(clean_TE, deviation_TE, logits_rng)
        return Logits(clean_TE, noisy_TE, deviation_TE)

    def preference(self, params: Params, logits_TE: jax.Array) -> jax.Array:
        """What experts are chosen by: logits, with which all scores rise, unless a rule shifts."""
        del params
        return logits_TE

    def pair(self, best_R2: jax.Array) -> jax.Array:
        """What ranks groups by the two best preferences in each: here the log of summed scores."""
        return jax.nn.logsumexp(self.score.log(best_R2), axis=-1)

    def reachable(self, params: Params, logits_TE: jax.Array, id_T: jax.Array) -> jax.Array:
        """Preferences, -inf for experts that a token may not have."""
        del id_T
        return self.in_groups(self.preference(params, logits_TE))

    def assign(
        self, params: Params, logits: Logits, id_T: jax.Array, rng: jax.Array | None
    ) -> jax.Array:
        """The experts (expert_TK) of each token; ties go to the lowest index."""
        del rng
        return choose(self.reachable(params, logits.noisy_TE, id_T), self.k)

    def preferences(self, params, x_TD, id_T, E):
        """Those of the logits without noise."""
        del E
        return self.reachable(params, self.logits(params, x_TD, None).clean_TE, id_T)

    def matrix(self, params: Params) -> jax.Array | None:
        """The matrix in use."""
        return self.weights(params, None)

    def __call__(self, params, x_TD, id_T, E, rng):
        """Routes x_TD."""
        del E
        return self.route(params, x_TD, id_T, rng)[0]

    def route(
        self, params: Params, x_TD: jax.Array, id_T: jax.Array, rng: jax.Array | None
    ) -> tuple[Routing, jax.Array]:
        """Routes x_TD; also returns the logits (TE) that the gates come from."""
        logits = self.logits(params, x_TD, rng)
        expert_TK = self.assign(params, logits, id_T, rng)
        weigh_TE = logits.noisy_TE if self.noise.weighs else logits.clean_TE
        plan = Choices(expert_TK, self.gates(weigh_TE, expert_TK))
        probability_TE = self.score.shares(logits.clean_TE)
        terms = self.losses.terms(
            logits.clean_TE,
            probability_TE,
            self.counted(logits, plan),
            chance(logits, self.k) if self.losses.load else None,
            self.weights(params, rng),
            self.loss_weight(params),
        )
        metrics = {"confidence": probability_TE.max(axis=1).mean()}
        return Routing(plan, terms, metrics), weigh_TE

    def in_groups(self, preference_TE: jax.Array) -> jax.Array:
        """Sets the experts of all groups but the best `groups_kept` to -inf."""
        if self.groups == self.groups_kept:
            return preference_TE
        T, E = preference_TE.shape
        grouped = preference_TE.reshape(T, self.groups, E // self.groups)
        if self.group_score == "max":
            rank = grouped.max(axis=-1)
        else:
            rows = grouped.reshape(T * self.groups, E // self.groups)
            rank = self.pair(largest(rows, 2)[0]).reshape(T, self.groups)
        kept = jax.nn.one_hot(choose(rank, self.groups_kept), self.groups, dtype=bool).any(axis=1)
        return jnp.where(kept[:, :, None], grouped, -jnp.inf).reshape(T, E)

    def gates(self, logits_TE: jax.Array, expert_TK: jax.Array) -> jax.Array:
        """gate_TK of the chosen experts from their logits."""
        if self.renormalize and self.k > 1:
            gate_TK = self.score.shares(take(logits_TE, expert_TK))
            if self.epsilon:  # share / (1 + epsilon * largest) = score / (sum + epsilon * best)
                gate_TK /= 1 + self.epsilon * gate_TK.max(axis=1, keepdims=True)
        elif self.order == "choose_first":
            gate_TK = self.score(take(logits_TE, expert_TK))
        else:
            gate_TK = take(self.score(logits_TE), expert_TK)
        return gate_TK * self.scale

    def counted(self, logits: Logits, plan: Choices) -> jax.Array:
        """The assignments that the load-balance loss counts."""
        return plan.assigned_TE(*logits.clean_TE.shape)

    def loss_weight(self, params: Params) -> jax.Array | float:
        """Factor of the load-balance loss."""
        if self.losses.adaptive is None:
            return 1.0
        return jnp.exp(state(params)["log_weight"])

    def update(self, params, load_E, stats):
        """Moves the adaptive loss weight, if there is one."""
        del stats
        if self.losses.adaptive is None:
            return params
        log_weight = self.losses.adaptive.update(state(params)["log_weight"], load_E)
        return with_state(params, log_weight=log_weight)

    def choices(self, E, T) -> float:
        """k."""
        del E, T
        return self.k

    def products(self, D, E):
        """x w, and what the noise needs."""
        return D * E + self.noise.products(D, E)

    def ranks(self, E):
        """k."""
        del E
        return self.k

    def check(self, path, num_experts):
        """Raises Mistake for impossible k, groups and orders."""
        check_choices(path, self.k, num_experts)
        if self.order == "choose_first" and self.k == 1 and isinstance(self.score, Softmax):
            raise Mistake(
                f"{path}.order=choose_first: a softmax over k=1 logit is always 1 and gives the "
                "router no gradient; take score_first"
            )
        if self.losses.load and not self.noise.gaussian:
            raise Mistake(
                f"{path}.losses.load={self.losses.load}: needs noise with a deviation "
                "(valid: noise=fixed, noise=learned)"
            )
        self._check_groups(path, num_experts)

    def _refuse_groups(self, path: str, why: str) -> None:
        """Raises Mistake where groups would limit the choice, for routers that choose otherwise."""
        if self.groups != self.groups_kept:
            raise Mistake(
                f"{path}.groups={self.groups}: must be groups_kept={self.groups_kept}, since {why}"
            )

    def _check_groups(self, path: str, num_experts: int) -> None:
        if self.groups < 1 or num_experts % self.groups:
            raise Mistake(f"{path}.groups={self.groups}: must divide num_experts={num_experts}")
        if not 1 <= self.groups_kept <= self.groups:
            raise Mistake(
                f"{path}.groups_kept={self.groups_kept}: must be in [1, groups={self.groups}]"
            )
        size = num_experts // self.groups
        if self.k > self.groups_kept * size:
            raise Mistake(
                f"{path}.k={self.k}: {self.groups_kept} groups of {size} experts hold fewer"
            )
        if self.group_score == "top2_sum" and self.groups > self.groups_kept and size < 2:
            raise Mistake(f"{path}.group_score=top2_sum: groups of {size} expert have no two")


def chance(logits: Logits, k: int) -> jax.Array:
    """P(expert e is among the k | the noise of all others): Shazeer et al. eq. 8-9.

    Differs from V-MoE (2106.05974, appendix A), which compares with the k-th logit also for
    chosen experts: its chances sum to 1.54 instead of k = 2, and its load loss is 1.14 times this
    one (E = 8, noise 1 / E, tokens with a common mean).
    """
    E = logits.clean_TE.shape[1]
    top_TK = largest(logits.noisy_TE, min(k + 1, E))[0]
    if k == E:
        return jnp.ones_like(logits.clean_TE)
    chosen = logits.noisy_TE > top_TK[:, k:]
    threshold_TE = jnp.where(chosen, top_TK[:, k:], top_TK[:, k - 1 : k])
    deviation_TE = 1.0 if logits.deviation_TE is None else logits.deviation_TE
    return jax.scipy.stats.norm.cdf((logits.clean_TE - threshold_TE) / deviation_TE)
