"""Grouped matrix products: rows sorted by expert times each expert's own matrix."""

from moe.registry import register

register(
    "kernel", "per_platform", "moe.kernels.grouped:PerPlatform", "the fastest of each platform"
)
register(
    "kernel", "blocked", "moe.kernels.blocked:Blocked", "loops over blocks of rows, everywhere"
)
register("kernel", "mosaic", "moe.kernels.mosaic:Mosaic", "XLA and Pallas on TPU")
register("kernel", "triton", "moe.kernels.triton:Triton", "Pallas on NVIDIA GPUs")
