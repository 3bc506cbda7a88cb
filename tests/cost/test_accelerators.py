"""The share of a device's peak."""

import types

import jax
import pytest

from moe.cost import accelerators
from moe.training import loop
from tests.training.test_train import experiment


@pytest.mark.parametrize(
    ("kind", "dtype", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989.4),
        ("NVIDIA H100 PCIe", "bfloat16", 756.0),
        ("NVIDIA A100-SXM4-80GB", "float32", 156.0),
        ("NVIDIA L4", "bfloat16", 121.0),
        ("TPU v5 lite", "bfloat16", 197.0),
        ("TPU v5", "bfloat16", 459.0),
        ("TPU v6 lite", "bfloat16", 918.0),
        ("Tesla V100-SXM2-16GB", "bfloat16", None),
        ("cpu", "float32", None),
        ("NVIDIA GeForce RTX 4090", "float32", None),
    ],
)
def test_peaks(kind, dtype, tflops):
    assert accelerators.peak(kind, dtype) == (tflops and tflops * 1e12)


def test_mfu_by_hand(monkeypatch):
    assert loop.utilisation(experiment(), 1000.0) is None  # a CPU is no known device
    device = types.SimpleNamespace(device_kind="TPU v4")
    monkeypatch.setattr(jax, "devices", lambda: [device])
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    run = experiment(None)
    per_token = loop.account.flops_per_token(run.model, 16, 4 * 16)
    # Three forward passes of 1000 tokens a second on two devices of 275 TFLOP/s.
    want = 3 * per_token * 1000 / (2 * 275e12)
    assert loop.utilisation(run, 1000.0) == pytest.approx(want)
