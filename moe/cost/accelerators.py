"""Peak matrix-product rates, for model FLOPs utilisation (MFU, PaLM, arXiv 2204.02311 section B).

Dense rates without sparsity, by the type of the factors. Sources: data sheets of NVIDIA V100, A100,
H100, H200, B200 and L4, and Google Cloud's pages of TPU v2 to TPU7x. A float32 product counts at
the rate that JAX gives it by default: TF32 on NVIDIA (float32 on V100), and bfloat16 passes on a
TPU. What JAX calls a device of a TPU is a chip, or one TensorCore of a chip that has two: of TPU
v2, v3 and TPU7x always, of v4 where it was asked for.
"""

import math

import jax

from moe.devices import sharding

# How a device kind begins -> (float32, bfloat16) in TFLOP/s, of a GPU or of one TensorCore of a
# TPU; the longest match counts.
PEAK = {
    "tesla v100": (15.7, None),  # V100 data sheet, SXM2; no bfloat16
    "nvidia a100": (156.0, 312.0),  # A100 data sheet: TF32, BF16
    "nvidia h100 pcie": (378.0, 756.0),  # H100 data sheet, PCIe: half of the sparse rates
    "nvidia h100": (494.5, 989.4),  # H100 data sheet, SXM: half of the sparse rates
    "nvidia h200": (494.5, 989.4),  # H200 data sheet, SXM: half of the sparse rates
    "nvidia b200": (1125.0, 2250.0),  # B200 (HGX) data sheet: half of the sparse rates
    "nvidia l4": (60.0, 121.0),  # L4 data sheet: half of the sparse rates
    "tpu v2": (22.5, 22.5),  # 180 per board of 4 chips, 2 cores each
    "tpu v3": (61.5, 61.5),  # 123 per chip of 2 cores
    "tpu v4": (137.5, 137.5),  # cloud.google.com/tpu/docs/v4: 275 per chip of 2 cores
    "tpu v4 lite": (138.0, 138.0),  # v4i, ISCA 2021, table 1
    "tpu v5 lite": (197.0, 197.0),  # cloud.google.com/tpu/docs/v5e
    "tpu v5e": (197.0, 197.0),
    "tpu v5": (229.5, 229.5),  # cloud.google.com/tpu/docs/v5p: 459 per chip of 2 cores
    "tpu v6 lite": (918.0, 918.0),  # cloud.google.com/tpu/docs/v6e
    "tpu v6e": (918.0, 918.0),
    "tpu7x": (1153.5, 1153.5),  # cloud.google.com/tpu/docs/tpu7x: 2307 per chip of 2 cores
}


def peak(kind: str, dtype: str = "float32", cores: int = 1) -> float | None:
    """FLOP/s of one device of that kind and TensorCores; None when the table has no number."""
    known = [name for name in PEAK if kind.lower().startswith(name)]
    if not known:
        return None
    rate = PEAK[max(known, key=len)][dtype == "bfloat16"]
    return rate and rate * cores * 1e12


def mfu(flops_per_s: float, dtype: str = "float32") -> float | None:
    """The share of the peak of the devices in use; None on devices without a known peak.

    Those are the devices of the mesh, or one: others that are there have no part in it.
    """
    device = jax.devices()[0]
    rate = peak(device.device_kind, dtype, getattr(device, "num_cores", 1))
    return rate and flops_per_s / (rate * math.prod(sharding.sizes().values()))
