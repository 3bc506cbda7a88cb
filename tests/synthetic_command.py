"""The command `python -m experiments`, in a process of its own, on the synthetic data set."""

import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from synthetic_data import SyntheticDataset  # noqa: E402

from experiments.__main__ import main  # noqa: E402
from moe.analysis import ngram  # noqa: E402
from moe.data import loader  # noqa: E402

ENTROPY = {"unigram_nats": 3.0, "fivegram_nats": 1.0}
BASELINES = {**ENTROPY, "by_desk": dict.fromkeys(SyntheticDataset.desks, ENTROPY)}

if __name__ == "__main__":
    loader.load = lambda data, V: SyntheticDataset(V, data.sequence_length)
    ngram.baselines = lambda dataset: BASELINES
    sys.exit(main(sys.argv))
