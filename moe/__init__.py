"""Mixture-of-experts language models in JAX: routers, dispatch, experts, training, analysis."""

from moe.registry import register

__version__ = "0.1.0"

register("layer", "moe", "moe.layer:MoE", "router, dispatch, experts")
register("layer", "multihash", "moe.multihash:MultiHash", "experts put together", "2106.04426")

register("experts", "swiglu", "moe.experts:SwiGLU", "gated, three matrices (arXiv 2002.05202)")
register("experts", "relu", "moe.experts:ReLU", "two matrices, as in Switch (arXiv 2101.03961)")

register("shared", "ffn", "moe.experts:SharedExpert", "a network for every token", "2401.06066")
register("shared", "gated", "moe.experts:GatedSharedExpert", "the same behind a sigmoid")
register("null", "null", "moe.experts:NullExperts", "zero, copy and constant", "2410.07348")

register("schedule", "wsd", "moe.optimizer:WarmupStableDecay", "warm-up, plateau, linear decay")
register("schedule", "cosine", "moe.optimizer:WarmupCosine", "warm-up, then half a cosine")
