"""The MoE layer and the transformer around it."""

from moe.registry import register

register("layer", "moe", "moe.model.layer:MoE", "router, dispatch, experts")
register(
    "layer", "multihash", "moe.model.multihash:MultiHash", "experts put together", "2106.04426"
)
register("token_vectors", "vectors", "moe.model.token_vectors:TokenVectors", "a vector of each id")
