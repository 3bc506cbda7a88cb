"""Laptop: 8.2 million tokens a run, most of its FLOPs in the feed-forward layers.

python -m experiments run dense_topk_hash --size=laptop --seeds=0,1,2,3,4 --workdir=runs/laptop

The feed-forward layers have 57 % of dense's FLOPs, where at tiny the head has most. The text is
read 1.08 times. A study that declares it tunes its arms here first.
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
            num_layers=4,
            model_width=128,
            attention=Attention(num_heads=4, num_kv_heads=2, head_width=32),
            ffn=SwiGLU(width=512),
            unroll=4,
        ),
        data=Data(sequence_length=128, held_out_windows=128),
        optimizer=Optimizer(learning_rate=6e-3),
        train=Train(steps=4000, batch=16, log_every=50, eval_every=250, save_every=500),
    )
