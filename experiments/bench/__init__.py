"""Benchmarks, one a file, and what they share. To add one: its file, and a line here."""

from moe.registry import register


def _benchmark(name: str, summary: str) -> None:
    register("benchmark", name, f"experiments.bench.{name}:BENCHMARK", summary)


_benchmark("step", "one training step of each arm of a study, and its parts, in turn")
_benchmark("router", "every router against the experts' own time")
_benchmark("layer", "every dispatcher against the machine's peak")
_benchmark("groups", "what small routing groups cost and save under einsum")
_benchmark("data", "reading text, alone and in the training loop")
