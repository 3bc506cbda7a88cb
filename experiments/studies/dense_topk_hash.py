"""Dense, top-k and hash routing at equal active FLOPs: does sparse beat dense, must it be learned?

Claims C10 and C18 of the literature: Switch (arXiv 2101.03961), Hash Layers (2106.04426), unified
scaling laws (2202.01169). All arms but dense_total cost the same FLOPs per token within 1 %,
attention, router and head counted.
"""

from experiments.studies.contract import (
    Caveat,
    Contrast,
    Expectation,
    Scale,
    Study,
)
from experiments.studies.plan import Grid, Lengths, Tuning

TABLES = ("hash_random", "hash_balanced")  # the arms that route by a fixed table
CONTROLS = (
    "dense_tokens",
    "top1_tokens",
    "hash_gate",
    "top1_gate_one",
    "frozen1",
    "one_expert",
    "hash2",
    "top2_e8",
    "hash2_e8",
)


def build(arm: str, size: str):
    """The experiment of one arm; sparse arms have MoE in every layer.

    Arms with k = 2 have twice as many experts of half the width, so that all sparse arms agree not
    only in active FLOPs but also in total parameters; those named _e8 have half as many.
    """
    import dataclasses

    from moe import registry
    from moe.cost import widths
    from moe.model.layer import MoE
    from moe.model.token_vectors import TokenVectors
    from moe.routers.stability import Frozen
    from moe.routers.token_table import TokenTable
    from moe.routers.top_k import TopK

    base = registry.lookup("size", size)()
    dense, length = base.model, base.data.sequence_length

    def sparse(router, num_experts=8):
        moe = MoE(num_experts=num_experts, router=router, experts=dense.ffn)
        layers = tuple(range(dense.num_layers))
        return widths.match_flops(dense.clone(moe=moe, moe_layers=layers), dense, length)

    def table(name, **changes):
        return dataclasses.replace(registry.lookup("router", name), **changes)

    models = {
        "dense": lambda: dense,
        "top1": lambda: sparse(TopK(k=1)),
        "top2": lambda: sparse(TopK(k=2), num_experts=16),
        "hash_random": lambda: sparse(table("hash_random")),
        "hash_balanced": lambda: sparse(table("hash_balanced")),
        "dense_total": lambda: widths.match_parameters(dense, sparse(TopK(k=1))),
        "dense_tokens": lambda: dense.clone(token_vectors=TokenVectors()),
        "top1_tokens": lambda: sparse(TokenTable(k=1)),
        "hash_gate": lambda: sparse(table("hash_scalar")),
        "top1_gate_one": lambda: sparse(TopK(k=1, weigh="even")),
        "frozen1": lambda: sparse(Frozen(k=1, weigh="even")),
        "one_expert": lambda: sparse(TopK(k=1), num_experts=1),
        "hash2": lambda: sparse(table("hash_balanced", k=2), num_experts=16),
        "top2_e8": lambda: sparse(TopK(k=2)),
        "hash2_e8": lambda: sparse(table("hash_balanced", k=2)),
    }
    return dataclasses.replace(base, model=models[arm]())


PILOT = "this study at tiny, before it was declared"  # 500 steps, 3 seeds, no arm tuned
CONTRASTS = (
    *(
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
    Contrast(
        name="hash_at_two",
        title="Two hashed experts against two learned ones",
        arm="hash2",
        against="top2",
        claim="trained to convergence, hash routing ends above learned routing",
        source="2604.14419",
        direction="higher",
        size=0.032,  # ln(35.1 / 34): the least of 1.1 to 2.2 in perplexity
    ),
    Contrast(
        name="learned_table",
        title="A learned table of tokens against a router that sees the context",
        arm="top1_tokens",
        against="top1",
        claim="what a table gains early is the identity of the token, learned or not",
        source=PILOT,
        direction="lower",
        size=-0.106,
    ),
    Contrast(
        name="fixed_table",
        title="A fixed table of tokens against a learned one",
        arm="hash_balanced",
        against="top1_tokens",
        claim="that the table is fixed does not matter",
        source=PILOT,
        direction="equal",
        size=-0.005,
    ),
    Contrast(
        name="without_experts",
        title="The identity of the token without experts against a table of experts",
        arm="dense_tokens",
        against="hash_balanced",
        claim="a vector for each token has most of what hashed experts gain, not all",
        source=PILOT,
        direction="higher",
        size=0.028,
    ),
    Contrast(
        name="gate_of_hash",
        title="A learned gate on hashed experts",
        arm="hash_gate",
        against="hash_balanced",
        claim="the gate that hash layers lack is not what they win or lose by",
        source=PILOT,
        direction="equal",
    ),
    Contrast(
        name="gate_of_top1",
        title="The gate of top-1",
        arm="top1_gate_one",
        against="top1",
        claim="without its gate in the forward pass top-1 ends higher",
        source=PILOT,
        direction="higher",
        size=0.108,
    ),
    Contrast(
        name="frozen_router",
        title="A router that never learns",
        arm="frozen1",
        against="top1_gate_one",
        claim="a frozen random router does as well as a learned one",
        source="2402.13089",
        direction="equal",
        size=0.002,  # ln(22.687 / 22.632)
    ),
    Contrast(
        name="fewer_experts",
        title="Half as many experts, learned",
        arm="top2_e8",
        against="top2",
        claim="more experts of the same width end lower",
        source="2409.02060",
        direction="higher",
    ),
    Contrast(
        name="fewer_hashed",
        title="Half as many experts, hashed",
        arm="hash2_e8",
        against="hash2",
        claim="more experts of the same width end lower",
        source="2202.01169",
        direction="higher",
    ),
)


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
        ("dense_tokens", "dense, with a learned vector of each token id in every layer"),
        ("top1_tokens", "top-1 of a learned table of token ids: fixed by token, and learned"),
        ("hash_gate", "hash_balanced, with a learned gate on each expert's output"),
        ("top1_gate_one", "top1, whose chosen expert weighs 1, as in a hash layer"),
        ("frozen1", "top1_gate_one, with a random router that never learns"),
        ("one_expert", "top1 with a single expert: equal to dense but for noise"),
        ("hash2", "hash_balanced with two experts of half width out of twice as many"),
        ("top2_e8", "top2 with half as many experts"),
        ("hash2_e8", "hash2 with half as many experts"),
    ),
    sizes=("tiny", "laptop", "small", "base"),
    seeds=(0, 1, 2),
    build=build,
    controls=CONTROLS,
    tuning=Tuning(
        grids=(Grid("optimizer.learning_rate", (3e-3, 6e-3, 1.2e-2)),),
        sizes=("laptop",),
        seeds=(1000, 1001),
        share=0.125,
    ),
    lengths=Lengths(shares=(1 / 16, 1 / 4), sizes=("laptop",)),
    contrasts=CONTRASTS,
    expectations=(
        Expectation("top1", "lower", -0.177, "2202.01169"),  # 15M, E = 8: S-BASE, balanced top-1
        Expectation("top2", "lower", -0.076, "2605.13769"),  # 1.5788 - 1.6545, of 4 experts
        Expectation("hash_random", "lower", -0.120, "2202.01169"),  # 15M, E = 8
        Expectation("hash_balanced", "lower", None, "2202.01169"),  # its table is another one
        Expectation("dense_total", "lower", -0.094, "2605.13769"),  # 1.5608 - 1.6545
        Expectation("dense_tokens", "lower", -0.048, PILOT),
        Expectation("top1_tokens", "lower", -0.071, PILOT),
        Expectation("hash_gate", "lower", None, PILOT),
        Expectation("hash2", "lower", None, "2202.01169"),
        Expectation("one_expert", "equal", 0.0, "an identity"),
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
