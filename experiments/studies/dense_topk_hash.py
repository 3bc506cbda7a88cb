"""Dense, top-k and hash routing at equal active FLOPs: does sparse beat dense, must it be learned?

Claims C10 and C18 of the literature: Switch (arXiv 2101.03961), Hash Layers (2106.04426), unified
scaling laws (2202.01169). All arms but dense_total cost the same FLOPs per token within 1 %,
attention, router and head counted.
"""

from experiments.studies.contract import Caveat, Contrast, Expectation, Scale, Study

TABLES = ("hash_random", "hash_balanced")  # the arms that route by a fixed table


def build(arm: str, size: str):
    """The experiment of one arm; sparse arms have MoE in every layer.

    top2 has twice as many experts of half the width, so that all sparse arms agree not only in
    active FLOPs but also in total parameters.
    """
    import dataclasses

    from moe import registry
    from moe.cost import widths
    from moe.model.layer import MoE
    from moe.routers.top_k import TopK

    base = registry.lookup("size", size)()
    dense, length = base.model, base.data.sequence_length

    def sparse(router, num_experts=8):
        moe = MoE(num_experts=num_experts, router=router, experts=dense.ffn)
        layers = tuple(range(dense.num_layers))
        return widths.match_flops(dense.clone(moe=moe, moe_layers=layers), dense, length)

    models = {
        "dense": lambda: dense,
        "top1": lambda: sparse(TopK(k=1)),
        "top2": lambda: sparse(TopK(k=2), num_experts=16),
        "hash_random": lambda: sparse(registry.lookup("router", "hash_random")),
        "hash_balanced": lambda: sparse(registry.lookup("router", "hash_balanced")),
        "dense_total": lambda: widths.match_parameters(dense, sparse(TopK(k=1))),
    }
    return dataclasses.replace(base, model=models[arm]())


STUDY = Study(
    question="At equal active FLOPs, does sparse beat dense, and must the routing be learned?",
    baseline="dense",
    arms=(
        ("dense", "no experts; every other arm but dense_total costs the same FLOPs"),
        ("top1", "learned router, one expert of full width"),
        ("top2", "learned router, two experts of half width out of twice as many"),
        ("hash_random", "fixed random table from token id to one expert"),
        ("hash_balanced", "fixed table, balanced by token frequency"),
        ("dense_total", "dense, widened to the same total parameters, at more FLOPs"),
    ),
    sizes=("tiny", "small", "base"),
    seeds=(0, 1, 2),
    build=build,
    contrasts=tuple(
        Contrast(
            name="difference_to_learned",
            title="Token tables against a learned router",
            arm=arm,
            against="top1",
            claim="a fixed table from token to expert ends no higher than a learned router",
            source="2106.04426",
            direction="lower",
            size=-0.021,  # ln(23.23 / 23.73): 64 experts in one layer, against Switch
        )
        for arm in TABLES
    ),
    expectations=(
        Expectation("top1", "lower", -0.177, "2202.01169"),  # 15M, E = 8: S-BASE, balanced top-1
        Expectation("top2", "lower", -0.076, "2605.13769"),  # 1.5788 - 1.6545, of 4 experts
        Expectation("hash_random", "lower", -0.120, "2202.01169"),  # 15M, E = 8
        Expectation("hash_balanced", "lower", None, "2202.01169"),  # its table is another one
        Expectation("dense_total", "lower", -0.094, "2605.13769"),  # 1.5608 - 1.6545
    ),
    margin=0.03,  # 2604.14419 calls routers equal within 1 of 34 in perplexity
    scales=(
        Scale(
            name="position",
            title="Position between dense (0) and dense_total (1)",
            start="dense",
            end="dense_total",
        ),
        Scale(
            name="hash_share",
            title="Share of top1's gain over dense that a fixed table keeps",
            start="dense",
            end="top1",
            arms=TABLES,
        ),
    ),
    caveats=(
        Caveat(
            "The hash arms have no learned gate on their experts' outputs, so part of their "
            "distance to the learned routers is the gate, not the choice of expert.",
            TABLES,
        ),
        Caveat(
            "The tables route by the token itself and top1 by what the layer knows at its "
            "position: a difference between them is one of token identity as well as of fixed "
            "against learned, and no arm here separates the two.",
            TABLES,
        ),
        Caveat(
            "Hash arms differ between desks only as far as the words of the desks differ.", TABLES
        ),
        Caveat(
            "dense_total bounds what the parameters could give; it is not a rival at equal cost.",
            ("dense_total",),
        ),
    ),
    colours=("top1", "top2", "hash_random", "hash_balanced", "dense_total"),
)
