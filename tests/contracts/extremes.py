"""What routers promise at the edge of float32: the sweep over logits that no usual run has.

A router is run on one small group in all `CASES`, in one program. Tokens and router weights lie
on a grid of 1/16, so logits are multiples of 1/256, which a shift by 100 does not round.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from moe import registry
from moe.params import map_named, merge_state, split_state
from moe.plan import Choices, Mix
from moe.registry import Mistake
from moe.routers.hash import Hash
from moe.routers.parts.gates import ScoreGate
from moe.routers.parts.losses import Losses
from moe.routers.parts.noise import Noise, NoNoise
from moe.routers.parts.scores import Softmax
from moe.routers.relu import ReLURouter
from moe.routers.top_k import TopK
from tests.contracts.routers import registered

T, D, E, V, LABELS = 12, 8, 16, 40, 5
RNG = jax.random.key(11)
SHIFTS = (0, 50, -50, 100, -100)  # of all logits
CASES = (*SHIFTS, "one 30 lower", "one 100 higher", "times 1000", "ties", "alike", "nothing")
MOVES = (ReLURouter,)  # a gate is open by the sign of its logit


def named():
    """Every registered router by name, and every score, noise and gate in one that takes it."""
    found = dict(registered())
    for name in registry.names("score"):
        score = registry.lookup("score", name)
        found[f"top_k, {name}"] = TopK(score=score)
        found[f"hash, {name} gate"] = Hash(k=2, gate=ScoreGate(score))
    for name in registry.names("noise"):
        found[f"top_k, {name} noise"] = TopK(noise=registry.lookup("noise", name))
    for name in registry.names("gate"):
        found[f"hash, {name} as gate"] = Hash(k=2, gate=registry.lookup("gate", name))
    return found


def with_k(router, k):
    """The router with k choices; None where it has no k, refuses that one, or has it anyway."""
    if getattr(router, "k", k) == k:
        return None
    changed = dataclasses.replace(router, k=k)
    return changed if _allowed(changed, E) else None


def alone(router):
    """The router for a single expert, without groups and second choices; None if it needs them."""
    single = {"k": 1, "groups": 1, "groups_kept": 1}
    names = {field.name for field in dataclasses.fields(router)} & set(single)
    changed = dataclasses.replace(router, **{name: single[name] for name in names})
    return changed if _allowed(changed, 1) else None


def _allowed(router, experts):
    try:
        router.check("router", experts)
    except Mistake:
        return False
    return True


def weighed(router):
    """The router with every auxiliary loss that it can have."""
    if not isinstance(router.losses, Losses):
        return router
    weights = {f.name: 0.1 for f in dataclasses.fields(router.losses) if type(f.default) is float}
    weights["load"] = 0.1 * getattr(router, "noise", NoNoise()).gaussian
    return dataclasses.replace(router, losses=dataclasses.replace(router.losses, **weights))


def _cases(params, tokens):
    """params and x_TD of every case, stacked; the last component of a token is 1."""
    x_TD = _grid(jax.random.normal(jax.random.key(0), (tokens, D))).at[:, -1].set(1)
    params = map_named(lambda name, a: _grid(a) if _makes_logits(name) else a, params)

    def shifted(amount, experts=slice(None)):
        def move(name, leaf):
            return leaf.at[-1, experts].add(amount) if _makes_logits(name) else leaf

        return map_named(move, params), x_TD

    def times(factor):
        def scaled(name, leaf):
            return leaf * factor if name.split("/")[-1].startswith(("w_", "phi_")) else leaf

        return map_named(scaled, params), x_TD

    others = {
        "one 30 lower": shifted(-30, 0),
        "one 100 higher": shifted(100, 0),
        "times 1000": times(1000),
        "ties": times(0),
        "alike": (params, jnp.broadcast_to(x_TD[:1], x_TD.shape)),
        "nothing": (params, 0 * x_TD),
    }
    found = [shifted(case) if isinstance(case, int) else others[case] for case in CASES]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)


def _grid(a):
    return jnp.round(16 * a) / 16


def _makes_logits(name):
    return name.split("/")[-1] == "w_DE"


@dataclasses.dataclass(frozen=True)
class Swept:
    """What a router read and made in all cases; leaves have a leading axis of them.

    Attributes:
      gradients: of losses and weighed gates, by what is learned and by the tokens.
    """

    params: dict
    x_TD: jax.Array
    plan: object
    losses: dict
    metrics: dict
    gradients: tuple


def gates(plan):
    """The numbers of a plan by which outputs are weighed."""
    if isinstance(plan, Mix):
        return [plan.dispatch_TEC, plan.combine_TEC]
    return [plan.gate_TK if isinstance(plan, Choices) else plan.gate_EC]


def swept(router, weight=None, dtype="float32", trains=True, single=None):
    """Runs the router in all cases; `weight` is the gradient that arrives at its gates.

    Args:
      single: "token" or "expert": what there is one of.
    """
    tokens, experts = 1 if single == "token" else T, 1 if single == "expert" else E
    program, params, x_TD, usual = _program(weighed(router), tokens, experts, trains, dtype)
    gradients, made = program(params, x_TD, weight or usual)
    return Swept(params, x_TD, *made, gradients)


_COMPILED = {}


def once(lowered):
    """The compiled program; one for all that lower to the same text."""
    text = lowered.as_text()
    if text not in _COMPILED:
        _COMPILED[text] = lowered.compile()
    return _COMPILED[text]


@functools.cache
def _program(router, tokens, experts, trains, dtype):
    """A function (params, x_TD, weight of the gates) of all cases, and what to call it with."""
    id_1T = jnp.arange(tokens, dtype=jnp.int32)[None] % V
    key_T = router.keys(id_1T, id_1T % LABELS).reshape(tokens)
    params, x_TD = _cases(router.init(jax.random.key(1), D, experts, V), tokens)
    x_TD = x_TD.astype(dtype)  # the grid is in bfloat16, too

    def route(params, x_TD):
        return router(params, x_TD, key_T, experts, RNG if trains else None)

    def total(learned, x_TD, state, weight):
        routing = route(merge_state(learned, state), x_TD)
        sums = jax.tree.map(lambda a: a.sum(axis=0), routing.terms)
        losses, metrics = router.losses(sums, tokens)
        used = [jnp.sum(g * w) for g, w in zip(gates(routing.plan), weight, strict=True)]
        made = routing.plan, losses, {**metrics, **routing.metrics}
        return sum([*losses.values(), *used]), made

    def run(params, x_TD, weight):
        learned, state = split_state(params)
        return jax.grad(total, (0, 1), has_aux=True)(learned, x_TD, state, weight)

    one = jax.tree.map(lambda a: a[0], (params, x_TD))
    shapes = [g.shape for g in gates(jax.eval_shape(route, *one).plan)]
    waves = [jnp.cos(jnp.arange(np.prod(shape)) + 0.5).reshape(shape) for shape in shapes]
    weight = [jnp.broadcast_to(w, (len(CASES), *w.shape)) for w in waves]
    of_all = jax.jit(lambda *cases: jax.lax.map(lambda case: run(*case), cases))
    return once(of_all.lower(params, x_TD, weight)), params, x_TD, weight


def faults(router, found):
    """What is wrong, each as (what, case); nothing if all is right."""
    parts = {name: getattr(found, name) for name in ("plan", "losses", "metrics", "gradients")}
    return [*not_finite(parts), *wrong_sums(router, found.plan), *moved(router, found.plan)]


def not_finite(tree):
    """Values of which not all are finite, and in which case."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if leaf.dtype != jax.dtypes.float0:
            for case, rows in zip(CASES, np.asarray(leaf, np.float32), strict=True):
                if not np.isfinite(rows).all():
                    yield f"{jax.tree_util.keystr(path)} is not finite", case


def wrong_sums(router, plan):
    """Gates that sum to a constant for usual logits, or are renormalised, and do not here."""
    if isinstance(plan, Mix):
        sums = {"dispatch": plan.dispatch_TEC.sum(axis=1), "combine": plan.combine_TEC.sum((2, 3))}
    else:
        sums = {"gates": plan.gate_TK.sum(axis=2)} if isinstance(plan, Choices) else {}
    for name, total in sums.items():
        total = np.asarray(total)
        renormalised = getattr(router, "renormalize", False) and router.k > 1
        full = renormalised and bool((plan.expert_TK < E).all())
        want = router.scale if full else total[0].flat[0]
        if full or (total[0].size > 1 and np.allclose(total[0], want, rtol=1e-5)):
            for case, row in zip(CASES, total, strict=True):
                if not np.allclose(row, want, rtol=1e-5):
                    yield f"{name} sum to {row.min():.3g} ... {row.max():.3g}, not {want:.3g}", case


def moved(router, plan):
    """Shifts of all logits that change what ignores them: choices, and gates by a softmax."""
    noise = getattr(router, "noise", NoNoise())
    jitters = type(noise).perturb_input is not Noise.perturb_input  # the shift is perturbed, too
    pairs = getattr(router, "group_score", "max") == "top2_sum"  # sums of scores feel a shift
    if isinstance(router, MOVES) or jitters or pairs:
        return
    scored = router if hasattr(router, "score") else getattr(router, "gate", None)
    soft = scored is None or isinstance(getattr(scored, "score", None), Softmax)
    for place, case in enumerate(SHIFTS):
        for leaf in jax.tree.leaves(plan):
            if leaf.dtype == jnp.int32 and (leaf[place] != leaf[0]).any():
                yield "choices move", case
            elif leaf.dtype != jnp.int32 and soft:
                if not np.allclose(leaf[place], leaf[0], rtol=1e-4, atol=1e-6):
                    yield "gates move", case
