"""The networks that tokens are routed to."""

from moe.registry import register

register(
    "experts",
    "swiglu",
    "moe.experts.feed_forward:SwiGLU",
    "gated, three matrices (arXiv 2002.05202)",
)
register(
    "experts",
    "relu",
    "moe.experts.feed_forward:ReLU",
    "two matrices, as in Switch (arXiv 2101.03961)",
)
register(
    "shared", "ffn", "moe.experts.shared:SharedExpert", "a network for every token", "2401.06066"
)
register("shared", "gated", "moe.experts.shared:GatedSharedExpert", "the same behind a sigmoid")
register("null", "null", "moe.experts.null:NullExperts", "zero, copy and constant", "2410.07348")
