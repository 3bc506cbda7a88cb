"""Where a training step's time goes: its parts, each alone at the size that it has in the step.

Each part is forward and backward, on random activations, times the layers that hold it. Alone, a
part keeps its inputs in cache and cannot overlap with others, so the shares need not add up to 1:
`rest` is what is left of the step, embedding, norms and residual sums included.
"""

import statistics
from collections.abc import Callable, Mapping

from experiments.bench.timing import interleaved, processor, timed_calls

PARTS = ("routing", "dispatch", "experts", "dense ffn", "attention", "head", "optimizer", "rest")


def parts(experiments: Mapping, dataset, repeats: int = 7) -> list[dict]:
    """Prints each arm's step and the share of each part; everything runs in turn.

    Args:
      experiments: arm -> Experiment.
      dataset: what `moe.data.loader.load` returns for all of them.

    Returns the rows: arm, step_s (median), and part -> share of the step. `dispatch` is what the
    layer's dispatcher takes beyond its experts at perfectly equal loads: moving rows, and uneven
    loads.
    """
    calls, counts = {}, {}
    for arm, experiment in experiments.items():
        for part, (call, times) in _calls(experiment, dataset).items():
            calls[arm, part], counts[arm, part] = call, times
    seconds = interleaved(calls, repeats)
    median = {key: counts[key] * statistics.median(found) for key, found in seconds.items()}
    rows = []
    for arm in experiments:
        took = {part: median[arm, part] for name, part in median if name == arm}
        step_s = took.pop("step")
        if "served" in took:
            took["dispatch"] = took.pop("served") - took["experts"]
        took["rest"] = step_s - sum(took.values())
        rows.append({"arm": arm, "step_s": step_s, **{p: took[p] / step_s for p in took}})
    _print(rows, repeats)
    return rows


def _print(rows: list[dict], repeats: int) -> None:
    import jax

    print(f"\nshares of a step, each part timed alone, {repeats} repeats in turn")
    print(f"{processor()}, JAX {jax.__version__}\n")
    print(f"{'':<14}{'step':>11}" + "".join(f"{part:>11}" for part in PARTS))
    for row in rows:
        shares = (f"{row[part]:>11.1%}" if part in row else f"{'':>11}" for part in PARTS)
        print(f"{row['arm']:<14}{row['step_s'] * 1e3:>8.1f} ms" + "".join(shares))


def _calls(experiment, dataset) -> dict[str, tuple[Callable, int]]:
    """Part -> a call without arguments, and how often a step makes it."""
    import jax

    from moe.experts.contract import apply_one

    model, A = experiment.model, experiment.train.accumulate
    B, L, D = experiment.train.batch // A, experiment.data.sequence_length, model.model_width
    keys = jax.random.split(jax.random.key(0), 3)
    x_BLD = jax.random.normal(keys[0], (B, L, D)).astype(model.dtype)
    attention = model.attention.init(keys[1], D, model.num_layers)
    found = {"step": (_step(experiment, dataset), 1), "optimizer": (_optimizer(experiment), 1)}
    found["attention"] = timed_calls(model.attention, attention, x_BLD)[1], A * model.num_layers
    found["head"] = _head(experiment, x_BLD), A
    dense, sparse = model.num_layers - len(model.moe_layers), len(model.moe_layers)
    if dense:
        ffn = model.ffn.init(keys[2], 1, D)
        call = timed_calls(lambda params, x: apply_one(model.ffn, params, x), ffn, x_BLD)[1]
        found["dense ffn"] = call, A * dense
    if sparse:
        layers = _moe(experiment, x_BLD)
        found |= {part: (call, A * sparse) for part, call in layers.items()}
    return found


def _step(experiment, dataset) -> Callable:
    from moe.training.step import init, train_step

    batch = dataset.batch(0, 0, experiment.train.batch)
    state = [init(experiment, dataset.corpus)]

    def once():
        state[0], metrics = train_step(experiment, state[0], batch)
        return state[0], metrics

    return once


def _optimizer(experiment) -> Callable:
    import jax
    import jax.numpy as jnp
    import optax

    from moe.params import split_state
    from moe.plan import Tokens

    model = experiment.model
    ids = jnp.zeros((1, experiment.data.sequence_length), jnp.int32)
    params = jax.jit(lambda key: model.init(key, Tokens(ids, ids))["params"])(jax.random.key(0))
    params, _ = split_state(params)
    transformation = experiment.optimizer.transformation(experiment.train.steps)

    @jax.jit
    def update(params, state, grads):
        updates, state = transformation.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = jax.jit(transformation.init)(params)
    return lambda: update(params, state, params)


def _head(experiment, x_BLD) -> Callable:
    import jax
    import jax.numpy as jnp
    import optax

    V, D = experiment.model.vocab_size, x_BLD.shape[-1]
    w_DV = jax.random.normal(jax.random.key(1), (D, V))
    target_BL = jax.random.randint(jax.random.key(2), x_BLD.shape[:2], 0, V)

    def nats(x_BLD, w_DV):
        logits_BLV = jnp.einsum(
            "BLD,DV->BLV", x_BLD, w_DV.astype(x_BLD.dtype), preferred_element_type=jnp.float32
        )
        return optax.softmax_cross_entropy_with_integer_labels(logits_BLV, target_BL)

    return timed_calls(nats, x_BLD, w_DV)[1]


def _moe(experiment, x_BLD) -> dict[str, Callable]:
    """Routing; the layer's dispatcher with its experts; the experts alone at equal loads."""
    import jax
    import jax.numpy as jnp

    from moe.experts.contract import Pool
    from moe.params import split_state

    model = experiment.model
    moe, (B, L, D) = model.moe, x_BLD.shape
    own, T = moe.num_experts, B * L
    params = jax.jit(lambda key: moe.init(key, D, model.vocab_size))(jax.random.key(3))
    id_BL = jax.random.randint(jax.random.key(4), (B, L), 0, model.vocab_size)
    label_BL = jnp.zeros_like(id_BL)
    key_T = moe.router.keys(id_BL, label_BL).reshape(T)
    learned, state = split_state(params["router"])

    def route(learned, x_TD, key_T):
        rng = jax.random.key(5)
        return moe.router({**learned, **state}, x_TD, key_T, moe.routed_experts, rng)

    def routing(learned, x_BLD):
        found = route(learned, x_BLD.reshape(T, D), key_T)
        sums = jax.tree.map(lambda a: a.sum(axis=0), found.terms)
        floats = [a for a in jax.tree.leaves(found.plan) if jnp.issubdtype(a.dtype, jnp.floating)]
        losses = moe.router.losses(sums, T)[0]
        return sum(map(jnp.sum, floats), start=sum(losses.values(), start=jnp.zeros(())))

    G = moe.dispatch.groups(T)
    x_GTD, key_GT = x_BLD.reshape(G, T // G, D), key_T.reshape(G, T // G)
    plans = jax.jit(jax.vmap(lambda x, key: route(learned, x, key).plan))(x_GTD, key_GT)

    def served(experts, x_GTD, plans):
        def group(plan, x_TD):
            return moe.dispatch(plan, x_TD, Pool(experts, moe.experts, own))[0]

        if G == 1:
            return group(jax.tree.map(lambda a: a[0], plans), x_GTD[0])
        return jax.vmap(group)(plans, x_GTD)

    rows = max(1, round(T * moe.router.choices(moe.routed_experts, T) / own))
    x_ECD = jnp.resize(x_BLD, (own, rows, D))
    return {
        "routing": timed_calls(routing, learned, x_BLD)[1],
        "served": timed_calls(served, params["experts"], x_GTD, plan=plans)[1],
        "experts": timed_calls(moe.experts, params["experts"], x_ECD)[1],
    }
