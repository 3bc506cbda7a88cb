"""Who is served when each expert has C slots, counted one by one, and what a router says of it."""

import numpy as np

from moe.order import ChoiceMajor
from moe.plan import Choices
from tests.contracts.routers import B, E, L, compiled, inputs


def served(plan, slots, token_major):
    """bool of shape TK: which choices get a slot, given in turn."""
    expert_TK, free = np.asarray(plan.expert_TK), np.full(E + 1, slots)
    free[E], (T, K) = 0, expert_TK.shape
    turns = [(t, k) for t in range(T) for k in range(K)]
    if not token_major:
        turns.sort(key=lambda turn: turn[::-1])
    found = np.zeros((T, K), bool)
    for t, k in turns:
        found[t, k] = free[expert_TK[t, k]] > 0
        free[expert_TK[t, k]] -= 1
    return found


def with_another_end(one, other, b):
    """Arrays with axes B and L first, in which the second half of sequence b is the other's."""
    half = one[0].shape[1] // 2
    return [a.at[b, half:].set(c[b, half:]) for a, c in zip(one, other, strict=True)]


def declared_ranks(router):
    """Later tokens of a sequence take an earlier one's slot just where an expert has ranks."""
    params, run = compiled(router)
    batch = inputs()
    plan = run(params, *batch, None)[1].plan
    if not router.causal or not isinstance(plan, Choices):
        return
    others = [with_another_end(batch, inputs(seed=5), b) for b in range(B)]
    plans = [run(params, *other, None)[1].plan for other in others]
    # As many slots as there are choices at perfect balance: some experts have too few.
    slots = int(np.sum(np.asarray(plan.expert_TK) < E)) // E
    for token_major in (True, False):
        before, *after = (
            served(one, slots, token_major).reshape(B, L, -1)[:, : L // 2] for one in (plan, *plans)
        )
        stays = all(np.array_equal(before[b], after[b][b]) for b in range(B))
        assert stays == (token_major or ChoiceMajor().causal(router.ranks(E))), token_major
