"""Tiny: one run takes well under a minute of one CPU core.

python -m experiments run dense_topk_hash --size=tiny --workdir=runs/tiny
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
            vocab_size=2048,
            num_layers=2,
            model_width=96,
            attention=Attention(num_heads=3, num_kv_heads=1, head_width=32),
            ffn=SwiGLU(width=256),
            unroll=2,
        ),
        data=Data(sequence_length=128, held_out_windows=64),
        optimizer=Optimizer(learning_rate=6e-3),
        train=Train(steps=500, batch=8, log_every=25, eval_every=50, save_every=250),
    )
