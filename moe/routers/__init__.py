"""Every router by name. To add one: write its file, add its line here."""

from moe.registry import register


def _router(name: str, target: str, summary: str, paper: str) -> None:
    register("router", name, f"moe.routers.{target}", summary, paper)


_router("dense", "dense:Dense", "every token to every expert, averaged", "")
_router("dense_softmax", "dense:DenseSoftmax", "every expert, weighed by a softmax", "Jacobs 1991")
_router("top_k", "top_k:TopK", "softmax, then the k best", "1701.06538")
_router("switch", "published:SWITCH", "top-1 with input jitter", "2101.03961")
_router("gshard", "gshard:GShard", "top-2, the second at random in training", "2006.16668")
_router("noisy_top_k", "published:NOISY", "top-4 with learned noise", "1701.06538")
_router("v_moe", "published:V_MOE", "top-2 with fixed noise, importance and load", "2106.05974")
_router("mixtral", "published:MIXTRAL", "top-2, renormalised", "2401.04088")
_router("olmoe", "published:OLMOE", "top-8, not renormalised", "2409.02060")
_router("qwen3", "published:QWEN3", "top-8, renormalised", "2505.09388")
_router("sigmoid", "published:SIGMOID", "sigmoid scores, renormalised", "2412.19437")
_router("deepseek_v2", "published:DEEPSEEK_V2", "top-6 in the 3 best of 8 groups", "2405.04434")
_router("deepseek_v3", "published:DEEPSEEK_V3", "top-8 in 4 of 8 groups, bias", "2412.19437")
_router("loss_free", "loss_free:LossFree", "a bias balances, no loss", "2408.15664")
_router("hash_random", "hash:RANDOM", "fixed random table of token ids", "2106.04426")
_router("hash_balanced", "hash:BALANCED", "table balanced by frequency", "2106.04426")
_router("hash_bigram", "hash:BIGRAM", "balanced table of the last two ids", "2106.04426")
_router("hash_previous", "hash:PREVIOUS", "balanced table of the id before", "2106.04426")
_router("hash_position", "hash:POSITION", "random table of places", "2106.04426")
_router("hash_clustered", "hash:CLUSTERED", "alike ids share an expert", "2106.04426")
_router("hash_dispersed", "hash:DISPERSED", "alike ids are kept apart", "2106.04426")
_router("hash_oracle", "hash:ORACLE", "balanced table of the next id, a cheat", "2106.04426")
_router("hash_scalar", "hash:SCALAR_GATE", "balanced table, learned loudness", "2106.04426")
_router("hash_score", "hash:SCORE_GATE", "balanced table, learned scores as gates", "DeepSeek-V4")
_router("token_table", "token_table:TokenTable", "top-k of a learned table of ids", "2106.04426")
_router("frozen", "stability:Frozen", "top-k of a random projection", "2402.13089")
_router("redrawn", "stability:Redrawn", "a new projection at every step", "2402.13089")
_router("learned_then_frozen", "stability:LearnedThenFrozen", "frozen from a step on", "2204.08396")
_router("sampled", "published:SAMPLED", "one expert drawn from the softmax", "2101.03961")
_router("expert_choice", "expert_choice:ExpertChoice", "experts pick their tokens", "2202.09368")
_router("batch_priority", "batch_priority:BatchPriority", "surest tokens first", "2106.05974")
_router("sinkhorn", "sinkhorn:Sinkhorn", "Sinkhorn in training, greedy after", "2202.01169")
_router("base", "auction:Base", "equal loads by auction in training", "2103.16716")
_router("soft", "soft:Soft", "slots are mixtures of all tokens", "2308.00951")
_router("cosine", "cosine:Cosine", "low-dimensional cosine, temperature", "2204.09179")
_router("kmeans", "kmeans:KMeans", "nearest centroid, moved by averages", "2003.05997")
_router("relu", "relu:ReLURouter", "open gates, adaptive sparsity loss", "2412.14711")
_router("supervised", "guided:Supervised", "top-k, taught a human label", "2108.05036")
_router("labelled", "guided:Labelled", "a human label replaces the router", "2108.05036")

register("score", "softmax", "moe.routers.parts.scores:Softmax", "experts compete")
register("score", "sigmoid", "moe.routers.parts.scores:Sigmoid", "every expert for itself")
register("score", "sqrt_softplus", "moe.routers.parts.scores:SqrtSoftplus", "unbounded")

register("noise", "none", "moe.routers.parts.noise:NoNoise", "no noise")
register("noise", "learned", "moe.routers.parts.noise:LearnedNoise", "learned deviation")
register("noise", "fixed", "moe.routers.parts.noise:FixedNoise", "deviation scale / E")
register("noise", "gumbel", "moe.routers.parts.noise:Gumbel", "samples experts")
register("noise", "jitter", "moe.routers.parts.noise:Jitter", "on the router's input")

register("rule", "sign", "moe.routers.parts.rules:Sign", "a fixed step against the load")
register("rule", "proportional", "moe.routers.parts.rules:Proportional", "a step as large as it")

register("key", "token", "moe.routers.parts.keys:Token", "the token's id")
register("key", "previous", "moe.routers.parts.keys:Previous", "the id before")
register("key", "ngram", "moe.routers.parts.keys:NGram", "the last n ids, hashed")
register("key", "position", "moe.routers.parts.keys:Position", "the place in the sequence")
register("key", "next", "moe.routers.parts.keys:Next", "the id after, a cheat")

register("table", "random", "moe.routers.parts.tables:RandomTable", "experts drawn uniformly")
register(
    "table", "balanced", "moe.routers.parts.tables:BalancedTable", "frequent ids to least loaded"
)
register("table", "clustered", "moe.routers.parts.tables:ClusteredTable", "k-means of embeddings")
register("table", "dispersed", "moe.routers.parts.tables:DispersedTable", "clusters dealt evenly")
register(
    "table", "block", "moe.routers.parts.tables:BlockTable", "one table for each part of multihash"
)

register("gate", "constant", "moe.routers.parts.gates:ConstantGate", "1/k")
register("gate", "scalar", "moe.routers.parts.gates:ScalarGate", "a sigmoid for each expert")
register("gate", "score", "moe.routers.parts.gates:ScoreGate", "a router's score of hashed experts")

register("layout", "first", "moe.routers.layout:First", "another router in the first MoE layers")
register("layout", "last", "moe.routers.layout:Last", "another router in the last MoE layers")
