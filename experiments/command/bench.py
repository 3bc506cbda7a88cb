"""`bench`: times one of the benchmarks of `experiments.bench`."""

from experiments.command.contract import Command

COMMAND = Command(
    words="BENCHMARK",
    kind="benchmark",
    examples=("step --arms=dense,top1 --set=model.moe.dispatch=einsum", "router"),
)
