"""Mixture-of-experts language models in JAX: routers, dispatch, experts, training, analysis."""

from moe.registry import register

register("experts", "swiglu", "moe.experts:SwiGLU", "gated, three matrices (arXiv 2002.05202)")
register("experts", "relu", "moe.experts:ReLU", "two matrices, as in Switch (arXiv 2101.03961)")

register("schedule", "wsd", "moe.optimizer:WarmupStableDecay", "warm-up, plateau, linear decay")
register("schedule", "cosine", "moe.optimizer:WarmupCosine", "warm-up, then half a cosine")
