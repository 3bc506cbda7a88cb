"""Every router under every kind of dispatcher, at the edge of float32: finite, and what it says."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest

from moe import registry
from moe.dispatch.limited import Parallel
from moe.experts.contract import Pool
from moe.plan import Choices
from moe.routers.parts.noise import NoNoise
from moe.routers.parts.ranking import take
from moe.routers.parts.scores import Sigmoid
from moe.routers.top_k import TopK
from tests.contracts.dispatch import served
from tests.contracts.extremes import (
    D,
    E,
    alone,
    faults,
    gates,
    named,
    not_finite,
    once,
    swept,
    with_k,
)
from tests.contracts.routers import EXPERTS

ROUTERS = named()
DISPATCHERS = [registry.lookup("dispatch", name) for name in registry.names("dispatch")]


def kinds():
    """Of each kind of arithmetic the first router, with two choices where it can have them."""
    found = {}
    for name, router in ROUTERS.items():
        parts = [type(getattr(router, part, None)) for part in ("score", "gate")]
        gaussian = getattr(router, "noise", NoNoise()).gaussian
        found.setdefault((type(router), *parts, gaussian), (name, with_k(router, 2) or router))
    return found.values()


def wrong(router, **how):
    """The faults of a router, each as a line."""
    found = faults(router, swept(router, **how))
    return [f"k={getattr(router, 'k', None)} {how}: {what} in case {case}" for what, case in found]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "router"), [pytest.param(*c, id=c[0]) for c in kinds()])
def test_routers_of_each_kind_in_training(name, router):
    assert not wrong(router, dtype="bfloat16")


PARAMS = EXPERTS.init(jax.random.key(0), E, D)


@functools.cache
def server(dispatch, form):
    """A function of all cases' tokens and plans: outputs, gradients by experts, tokens, plan."""

    def loss(params, x_TD, plan):
        y_TD, stats = served(dispatch, plan, x_TD, Pool(params, EXPERTS, E))
        return jnp.sum(jnp.sin(y_TD)), (y_TD, stats)

    def of_case(arrays):
        return jax.grad(loss, (0, 1, 2), has_aux=True, allow_int=True)(PARAMS, *arrays)

    run = jax.jit(lambda *cases: jax.lax.map(of_case, cases))  # grouped products know no `vmap`
    return once(run.lower(*jax.tree.unflatten(*form)))


def serve(dispatch, found):
    """What `dispatch` makes of the plans of all cases."""
    arrays = found.x_TD, widened(found.plan)
    leaves, tree = jax.tree.flatten(jax.eval_shape(lambda: arrays))
    return server(dispatch, (tree, tuple(leaves)))(*arrays)


def widened(plan):
    """A plan of 3 to 15 choices as one of 8 or 16, the last ones not made: widths are compiled."""
    K = plan.expert_TK.shape[2] if isinstance(plan, Choices) else 1
    more = max(K, min(2, K), 8 * (K > 2), E * (K > 8)) - K
    if not more:
        return plan
    wider = ((0, 0), (0, 0), (0, more))
    expert_TK = jnp.pad(plan.expert_TK, wider, constant_values=E)
    return Choices(expert_TK, jnp.pad(plan.gate_TK, wider))


def through(dispatch, router, dtype="float32"):
    """What is not finite in outputs, or in gradients that went through dispatcher and router."""
    found = swept(router, dtype=dtype)
    grads, outputs = serve(dispatch, found)
    pairs = zip(gates(grads[2]), gates(found.plan), strict=True)
    weight = [gradient[..., : own.shape[-1]] for gradient, own in pairs]  # without what is widened
    back = swept(router, weight=weight, dtype=dtype).gradients
    made = {"outputs": outputs, "gradients": grads, "router": back}
    return [f"{dispatch}: {what} in case {case}" for what, case in not_finite(made)]


@pytest.mark.parametrize(
    ("name", "dispatch"),
    [
        *(("sigmoid", name) for name in ("oracle", "einsum", "gather", "ragged")),
        ("expert_choice", "gather"),
        ("soft", "einsum"),
    ],
)
def test_each_kind_of_plan_through_each_kind_of_dispatcher(name, dispatch):
    assert not through(registry.lookup("dispatch", dispatch), ROUTERS[name], dtype="bfloat16")


@pytest.mark.slow
@pytest.mark.parametrize("name", ROUTERS)
def test_every_router_with_each_k_through_every_dispatcher(name):
    router = ROUTERS[name]
    found = wrong(router, trains=False) + wrong(router, single="token")
    if alone(router) is not None:
        found += wrong(alone(router), single="expert")
    ks = (1, E) if name in registry.names("router") else ()
    for changed in (router, *filter(None, (with_k(router, k) for k in ks))):
        found += wrong(changed)
        takes_all = isinstance(swept(changed).plan, Choices)
        for dispatch in dict.fromkeys(DISPATCHERS):
            if takes_all or not isinstance(dispatch, Parallel):
                found += through(dispatch, changed)
    assert not found


@dataclasses.dataclass(frozen=True)
class Guarded(TopK):
    """Divides by a sum that an absolute number guards, and chooses by scores: what is refused."""

    score: Sigmoid = Sigmoid()

    def preference(self, params, logits_TE):
        return self.score(logits_TE)

    def gates(self, logits_TE, expert_TK):
        gate_TK = take(self.score(logits_TE), expert_TK)
        return gate_TK / (gate_TK.sum(axis=1, keepdims=True) + 1e-20)


def test_the_sweep_sees_an_absolute_guard():
    # At -100 a sigmoid is 0 in float32: 0 / 1e-20, and the derivative overflows; at 50 it is 1 for
    # all logits, so the choice is that of a tie.
    found = faults(Guarded(), swept(Guarded(), dtype="bfloat16"))
    what = {(what.partition(" sum to ")[0], case) for what, case in found}
    assert {("gates", -50), ("gates", -100), ("choices move", 50)} <= what
    assert any("gradients" in name and case == -100 for name, case in what)
