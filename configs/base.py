"""Base: for a TPU slice or several GPUs.

python -m experiments data prepare wiki40b/en
python -m experiments run dense_topk_hash --size=base --workdir=runs/base

Its 2.6 billion training tokens are about one pass of English Wikipedia (CC BY-SA 3.0), 9.9 GiB by
the catalogue. None of the times below was measured with it: see `configs/small.py` for the
preparing of the set; the tokens of all of it should take hours on a machine of many cores.
"""

from moe.data.data import Data
from moe.experiment import Experiment, Train
from moe.experts.feed_forward import SwiGLU
from moe.model.attention import Attention
from moe.model.transformer import Transformer
from moe.optimizer.adamw import Optimizer


def config() -> Experiment:
    """The dense experiment of this size."""
    return Experiment(
        model=Transformer(
            vocab_size=4096,
            num_layers=12,
            model_width=768,
            attention=Attention(num_heads=12, num_kv_heads=4, head_width=64),
            ffn=SwiGLU(width=2048),
            dtype="bfloat16",
            remat="period",
        ),
        data=Data(sequence_length=1024, held_out_windows=64, source="tfds:wiki40b/en"),
        optimizer=Optimizer(learning_rate=6e-4),
        train=Train(steps=10_000, batch=256, log_every=50, eval_every=500, save_every=1000),
    )
