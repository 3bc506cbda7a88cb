"""The share of a device's peak."""

import importlib.util
import types

import jax
import pytest

from moe.cost import accelerators
from moe.training import ahead, loop
from tests.contracts.dispatch import mesh_of
from tests.training.test_train import experiment


@pytest.mark.parametrize(
    ("kind", "dtype", "cores", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 1, 989.4),
        ("NVIDIA H100 PCIe", "bfloat16", 1, 756.0),
        ("NVIDIA A100-SXM4-80GB", "float32", 1, 156.0),
        ("NVIDIA L4", "bfloat16", 1, 121.0),
        ("TPU v5 lite", "bfloat16", 1, 197.0),
        ("TPU v5", "bfloat16", 2, 459.0),
        ("TPU v4", "bfloat16", 2, 275.0),
        ("TPU v4", "bfloat16", 1, 137.5),  # asked to show each core as a device
        ("TPU v6 lite", "bfloat16", 1, 918.0),
        ("TPU7x", "bfloat16", 1, 1153.5),  # 2307 of a chip, which is two devices
        ("Tesla V100-SXM2-16GB", "bfloat16", 1, None),
        ("cpu", "float32", 1, None),
        ("NVIDIA GeForce RTX 4090", "float32", 1, None),
    ],
)
def test_peaks(kind, dtype, cores, tflops):
    assert accelerators.peak(kind, dtype, cores) == (tflops and tflops * 1e12)


@pytest.mark.parametrize(
    ("kind", "cores", "rate"), [("TPU v4", 2, 275e12), ("TPU7x", 1, 1153.5e12)]
)
def test_mfu_by_hand(kind, cores, rate, monkeypatch):
    assert loop.utilisation(experiment(), 1000.0) is None  # a CPU is no known device
    devices = jax.devices()
    device = types.SimpleNamespace(device_kind=kind, num_cores=cores)
    run = experiment(None)
    per_token = loop.account.flops_per_token(run.model, 16, 4 * 16)
    with jax.set_mesh(mesh_of(2, 1)):
        monkeypatch.setattr(jax, "devices", lambda: [device] * len(devices))
        # Three forward passes of 1000 tokens a second on the two devices of the mesh; the six
        # others that are there are idle.
        want = 3 * per_token * 1000 / (2 * rate)
        assert loop.utilisation(run, 1000.0) == pytest.approx(want)
    # Without a mesh a run takes one device, however many there are.
    assert loop.utilisation(run, 1000.0) == pytest.approx(2 * want)


@pytest.mark.tpu
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")
@pytest.mark.parametrize(
    ("target", "devices", "chip"),
    [
        # Four chips each; TFLOP/s of a chip in bfloat16, of Google Cloud's pages.
        ("v4:2x2x1", 4, 275),
        ("v5e:2x2", 4, 197),
        ("v5p:2x2x1", 4, 459),
        ("v6e:2x2", 4, 918),
        ("tpu7x:2x2x1", 8, 2307),  # its chip is two devices
    ],
)
def test_the_devices_of_a_slice_add_up_to_its_chips(target, devices, chip):
    found = ahead.slice_devices(target)
    assert len(found) == devices
    rate = accelerators.peak(found[0].device_kind, "bfloat16", found[0].num_cores)
    assert rate * len(found) == pytest.approx(4 * chip * 1e12)
