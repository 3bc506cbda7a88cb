"""Times training steps of all arms of a study in one process, in turn, and the data beside them."""

import statistics
import time

from moe import registry


def step(size: str, study_name: str = "dense_topk_hash", repeats: int = 15) -> list[dict]:
    """Prints, for each arm, the median step and its ratio to the baseline's, interleaved.

    The data row is the time that the training loop waits for a batch from the prefetching stream.
    On CPU every arm runs in this process with all its cores; `run` gives each arm a core of its
    own. Returns the rows: arm, median_s, ratio (median of the ratios repeat by repeat), low and
    high (their quartiles).
    """
    import jax

    from experiments.request import resolve
    from moe import train
    from moe.data.loader import load

    study = registry.lookup("study", study_name)
    experiments = resolve(study_name, None, size, ())
    base = experiments[study.baseline]
    dataset = load(base.data, base.model.vocab_size)
    batches = dataset.stream(0, 0, base.train.batch)
    states = {arm: train.init(e, dataset.count_V) for arm, e in experiments.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ["data", *experiments]}
    for repeat in range(repeats + 2):
        tick = time.perf_counter()
        batch = next(batches)
        took = {"data": time.perf_counter() - tick}
        for arm, experiment in experiments.items():
            tick = time.perf_counter()
            states[arm], metrics = train.train_step(experiment, states[arm], batch)
            jax.block_until_ready((states[arm], metrics))
            took[arm] = time.perf_counter() - tick
        if repeat >= 2:  # the first compiles, the second still warms up
            for name, value in took.items():
                seconds[name].append(value)
    rows = [_row(name, seconds, study.baseline) for name in seconds]
    _print(rows, experiments, base, f"{study_name} --size={size}", repeats)
    return rows


def _print(rows: list[dict], experiments: dict, base, title: str, repeats: int) -> None:
    import jax

    from moe import cost

    length = base.data.sequence_length
    tokens = base.train.batch * length
    print(f"{title}: one training step, {tokens} tokens, {repeats} repeats in turn")
    print(f"{jax.devices()[0].device_kind}, JAX {jax.__version__}\n")
    print(f"{'':<14} {'median':>10} {'ratio':>7} {'quartiles':>13} {'GFLOP/s':>8}")
    for row in rows:
        arm, rate = row["arm"], ""
        if arm in experiments:
            flops = 3 * tokens * cost.flops_per_token(experiments[arm].model, length)
            rate = f"{flops / row['median_s'] / 1e9:>8.1f}"
        quartiles = f"{row['low']:.2f} to {row['high']:.2f}"
        milliseconds = f"{row['median_s'] * 1e3:.2f} ms"
        print(f"{arm:<14} {milliseconds:>10} {row['ratio']:>7.3f} {quartiles:>13} {rate}")


def _row(name: str, seconds: dict[str, list[float]], baseline: str) -> dict:
    ratios = [a / b for a, b in zip(seconds[name], seconds[baseline], strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    return {
        "arm": name,
        "median_s": statistics.median(seconds[name]),
        "ratio": statistics.median(ratios),
        "low": low,
        "high": high,
    }
