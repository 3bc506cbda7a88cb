"""The command, in a process to be killed: synthetic text, every run in this process, no report."""

import os
import pathlib
import resource
import sys

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_disable_most_optimizations", True)
sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from experiments import __main__ as command  # noqa: E402
from experiments.command import report  # noqa: E402
from experiments.runner import workers  # noqa: E402
from moe.analysis import ngram  # noqa: E402
from moe.data import loader  # noqa: E402
from tests.fakes.data import SyntheticDataset  # noqa: E402

if __name__ == "__main__":
    loader.load = lambda data, V: SyntheticDataset(V)
    ngram.baselines = lambda dataset: {"unigram_nats": 3.0, "fivegram_nats": 1.0, "by_desk": {}}
    workers._accelerator = lambda: True  # as with one: the runs share a process
    report.publish = lambda directory: None
    if limit := os.environ.get("LARGEST_FILE"):  # as if the disk were full
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
    sys.exit(command.main(sys.argv))
