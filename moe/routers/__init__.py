"""Every router by name. To add one: write its file, add its line here."""

from moe.registry import register

register("router", "dense", "moe.routers.dense:Dense", "every token to every expert, no router")
register("router", "top_k", "moe.routers.top_k:TopK", "softmax, then top-k (arXiv 1701.06538)")
register("router", "switch", "moe.routers.top_k:SWITCH", "top-1, no z-loss (arXiv 2101.03961)")
register("router", "hash_random", "moe.routers.hash:RANDOM", "fixed random table (2106.04426)")
register("router", "hash_balanced", "moe.routers.hash:BALANCED", "table balanced by frequency")

register("table", "random", "moe.routers.hash:RandomTable", "experts drawn uniformly")
register("table", "balanced", "moe.routers.hash:BalancedTable", "frequent ids to least loaded")
