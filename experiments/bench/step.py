"""Times training steps of all arms of a study, or all routers, in one process and in turn."""

import pathlib
import time
from collections.abc import Sequence

from experiments.bench.timing import measured, save
from moe import registry
from moe.registry import Mistake


def step(
    size: str,
    study_name: str = "dense_topk_hash",
    overrides: Sequence[str] = (),
    repeats: int = 15,
    directory: pathlib.Path | None = None,
    arms: Sequence[str] | None = None,
) -> list[dict]:
    """Prints the median step of each arm, all unless named, over the baseline's, interleaved.

    Then the shares of its parts (`bench_parts`); writes both as step.json into `directory`.

    The data row is the time that the training loop waits for a batch from the prefetching stream.
    On CPU every arm runs in this process with all its cores; `run` gives each arm a core of its
    own. Returns the rows: arm, median_s, ratio (median of the ratios repeat by repeat), low and
    high (their quartiles).
    """
    import jax

    from experiments.bench import parts
    from experiments.select import resolve
    from moe.data.loader import load
    from moe.training import step

    study = registry.lookup("study", study_name)
    experiments = resolve(study_name, arms, size, overrides)
    if study.baseline not in experiments:
        raise Mistake(f"--arms={','.join(arms)}: must name {study.baseline}, the baseline")
    base = experiments[study.baseline]
    dataset = load(base.data, base.model.vocab_size)
    batches = dataset.stream(0, 0, base.train.batch)
    states = {arm: step.init(e, dataset.corpus) for arm, e in experiments.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ["data", *experiments]}
    for repeat in range(repeats + 2):
        tick = time.perf_counter()
        batch = next(batches)
        took = {"data": time.perf_counter() - tick}
        for arm, experiment in experiments.items():
            tick = time.perf_counter()
            states[arm], metrics = step.train_step(experiment, states[arm], batch)
            jax.block_until_ready((states[arm], metrics))
            took[arm] = time.perf_counter() - tick
        if repeat >= 2:  # the first compiles, the second still warms up
            for name, value in took.items():
                seconds[name].append(value)
    rows = [measured(name, seconds, study.baseline) for name in seconds]
    title = " ".join([study_name, f"--size={size}", *(f"--set {o}" for o in overrides)])
    _print(rows, experiments, base, title, repeats)
    shares = parts.parts(experiments, dataset)
    save(directory, "step", {"title": title, "steps": rows, "parts": shares})
    return rows


def _print(rows: list[dict], experiments: dict, base, title: str, repeats: int) -> None:
    import jax

    from moe.cost import account

    length = base.data.sequence_length
    tokens = base.train.batch * length
    print(f"{title}: one training step, {tokens} tokens, {repeats} repeats in turn")
    print(f"{jax.devices()[0].device_kind}, JAX {jax.__version__}\n")
    print(f"{'':<14} {'median':>10} {'ratio':>7} {'quartiles':>13} {'GFLOP/s':>8}")
    for row in rows:
        arm, rate = row["arm"], ""
        if arm in experiments:
            flops = 3 * tokens * account.flops_per_token(experiments[arm].model, length)
            rate = f"{flops / row['median_s'] / 1e9:>8.1f}"
        quartiles = f"{row['low']:.2f} to {row['high']:.2f}"
        milliseconds = f"{row['median_s'] * 1e3:.2f} ms"
        print(f"{arm:<14} {milliseconds:>10} {row['ratio']:>7.3f} {quartiles:>13} {rate}")
