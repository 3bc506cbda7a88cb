"""The collectives of a whole scanned training step on three slices, against numbers by hand.

Needs libtpu (`make test-tpu` installs it aside), which compiles without a TPU.
"""

import collections
import importlib.util

import pytest

from moe.data.data import Data
from moe.devices import mesh
from moe.experiment import Experiment, Train
from moe.experts.feed_forward import SwiGLU
from moe.model.attention import Attention
from moe.model.layer import MoE
from moe.model.transformer import Transformer
from moe.routers.top_k import TopK
from moe.training import ahead

# V = 512, N = 12 layers in one scan, D = 128, H = 4, J = 2, A = 32, E = 16, F = 128, K = 2, in
# bfloat16 (2 bytes); 32 sequences of L = 128 tokens.
V, N, D, H, J, A, E, F, K, TOKENS = 512, 12, 128, 4, 2, 32, 16, 128, 2, 32 * 128
LAYERED = Experiment(
    Transformer(
        vocab_size=V,
        num_layers=N,
        model_width=D,
        attention=Attention(num_heads=H, num_kv_heads=J, head_width=A),
        moe=MoE(num_experts=E, router=TopK(k=K), experts=SwiGLU(width=F)),
        moe_layers=tuple(range(N)),
        dtype="bfloat16",
    ),
    Data(sequence_length=128),
    train=Train(batch=32),
)


def by_hand(over: mesh.Mesh) -> dict[tuple[str, int], int]:
    """(kind, how often a step runs it) -> the bytes that a device gets each time.

    In every layer, over the `expert` axis: the t tokens of each of its devices (2 bytes), the
    numbers (4) and gates (2) of their experts are gathered; outputs are summed and each device
    keeps those of its own t tokens. Backwards the gradient of the outputs is gathered in turn, that
    of the inputs summed in parts; that of the gates (float32) is so short that XLA sums it whole.

    Over `fsdp`: attention and the device's own E / expert experts are gathered in bfloat16, once,
    since nothing is computed again; the embedding once a step, as it is kept, in float32.

    Gradients of attention (bfloat16) and of the router (float32) are summed over all devices in
    every layer. Those of experts are summed over `data` and `fsdp`. Where that is `fsdp` alone, a
    device keeps its part of w_gate and w_in; the part of w_out would lie along its last axis, of
    which TPUs scatter nothing, so that it is summed whole, as all three are where `data` splits
    too. Once a step: the embedding's gradient as a head (bfloat16) and as a table (float32); in one
    with the latter those of the norms, all layers together, how many assignments each layer dropped
    and did not serve, and the loss.
    """
    t = TOKENS // over.size
    attention = (2 * H + 2 * J) * A * D
    expert = E // over.expert * D * F
    found = collections.Counter()
    found["all-gather", N] = over.expert * t * (2 * D * 2 + K * (2 + 4))
    found["reduce-scatter", N] = 2 * t * D * 2
    found["all-reduce", N] = attention * 2 + D * E * 4 + over.expert * t * K * 4
    if over.fsdp > 1:
        found["all-gather", N] += attention * 2 + 3 * expert * 2
        found["all-gather", 1] += V * D * 4
    scattered = 2 if over.data == 1 else 0
    found["reduce-scatter", N] += scattered * expert * 2 // over.fsdp
    found["all-reduce", N] += (3 - scattered) * expert * 2
    norms = D + N * (2 * D + 2 * A)
    found["all-reduce", 1] = V * D * 2 + V * D * 4 + norms * 4 + 2 * N * 4 + 4
    return dict(found)


@pytest.mark.tpu
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")
@pytest.mark.parametrize(
    ("target", "text", "total"),
    [
        # By hand, in KiB. Gathered in each of 12 layers: 2 x 256 tokens, 12 numbers and gates,
        # 96 attention, 384 experts: 1004; the embedding, 256. Scattered: 2 x 64 tokens, 2 x 32
        # experts: 192. Summed: 96 attention, 8 router, 8 gates, 128 w_out: 240; once 128 and 256
        # of the embedding, 15972 bytes of norms, counts and loss.
        (
            "v5e:4x4",
            "fsdp:4,expert:4",
            {
                "all-gather": (12 * 1004 + 256) * 1024,
                "reduce-scatter": 12 * 192 * 1024,
                "all-reduce": (12 * 240 + 384) * 1024 + 15972,
            },
        ),
        # Twice the tokens on each of 8 devices: 2 x 512 + 24 gathered, 2 x 128 scattered, 16 of
        # gates; 3 x 128 of experts summed, 96 + 8 as above.
        (
            "v5p:2x2x2",
            "data:2,expert:4",
            {
                "all-gather": 12 * 1048 * 1024,
                "reduce-scatter": 12 * 256 * 1024,
                "all-reduce": (12 * 504 + 384) * 1024 + 15972,
            },
        ),
        # Gathered as on v5e; nothing of the experts' gradients is scattered: 2 x 64 of tokens, and
        # 96 + 8 + 8 + 3 x 128 summed.
        (
            "v6e:4x4",
            "data:2,fsdp:2,expert:4",
            {
                "all-gather": (12 * 1004 + 256) * 1024,
                "reduce-scatter": 12 * 128 * 1024,
                "all-reduce": (12 * 496 + 384) * 1024 + 15972,
            },
        ),
    ],
)
def test_a_scanned_step_moves_what_it_moves_by_hand(target, text, total, optimised):
    devices, over = ahead.slice_devices(target), mesh.parse(text)
    report = ahead.compile_step(LAYERED, over, target, devices)
    assert all(one.sure for one in report.collectives)
    # Counts and single numbers, below 1 KiB each, are left out.
    large = [one for one in report.collectives if one.bytes >= 1024 * one.runs]
    found = collections.Counter()
    for one in large:
        found[one.kind, one.runs] += one.bytes // one.runs
    assert dict(found) == by_hand(over)
    assert {k: sum(o.bytes for o in large if o.kind == k) for k in total} == total
    assert report.devices == len(devices) == over.size
