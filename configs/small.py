"""Small: the whole study takes about an hour on one GPU.

python -m experiments run dense_topk_hash --size=small --workdir=runs/small
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
            num_layers=6,
            model_width=384,
            attention=Attention(num_heads=6, num_kv_heads=2, head_width=64),
            ffn=SwiGLU(width=1024),
            dtype="bfloat16",
        ),
        data=Data(sequence_length=512, held_out_windows=64),
        optimizer=Optimizer(learning_rate=2e-3),
        train=Train(steps=1500, batch=32, log_every=50, eval_every=125, save_every=500),
    )
