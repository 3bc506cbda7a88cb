"""Small: the whole study takes about an hour on one GPU.

python -m experiments data prepare wiki40b/en
python -m experiments run dense_topk_hash --size=small --workdir=runs/small

Its 24.6 million training tokens are about half a pass of 50,000 articles of English Wikipedia (CC
BY-SA 3.0). By the catalogue the whole set is 9.9 GiB. None of the times below was measured with it:
preparing the set, which needs TensorFlow and Apache Beam, should take some hours, once; hashing it
up to a minute; tokeniser and tokens of 160 MB twice (as many articles are held out), at the
measured 1.2 MB/s on two CPU cores, some ten minutes.
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
        data=Data(
            sequence_length=512,
            held_out_windows=64,
            source="tfds:wiki40b/en",
            max_documents=50_000,
        ),
        optimizer=Optimizer(learning_rate=2e-3),
        train=Train(steps=1500, batch=32, log_every=50, eval_every=125, save_every=500),
    )
