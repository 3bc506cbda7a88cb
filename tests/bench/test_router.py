"""The benchmark of routers: a row for each, beside the experts; no time is asserted."""

from experiments.bench import router
from moe import registry


def test_bench_of_routers_times_each_against_the_experts(capsys):

    sizes = router.Sizes(B=2, L=16, D=8, E=8, F=8, k=4, V=20)
    names = ("top_k", "gshard", "dense", "hash_previous", "expert_choice", "supervised")
    rows = router.router(sizes, repeats=3, names=names)
    assert tuple(row["router"] for row in rows) == names
    # gshard insists on 2, dense takes all 8, expert choice has a capacity factor of 2 and no k.
    assert [(row["k"], row["as_is"]) for row in rows] == [
        (4, False), (2, True), (8, True), (4, False), (2, True), (4, False),
    ]  # fmt: skip
    assert [row["plan"] for row in rows] == ["Choices"] * 4 + ["Slots", "Choices"]
    assert all(0 < row["low"] <= row["ratio"] <= row["high"] for row in rows)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "routing of 32 tokens, D=8, E=8: 3 repeats in turn"
    assert lines[2].endswith("for 128 rows through SwiGLU, F=8")  # 32 tokens, 4 choices each
    assert [line.split()[0] for line in lines[5:11]] == list(names)
    assert lines[6].endswith("2 as it is") and lines[5].endswith(" 4")
    assert lines[12] == "target: at most 10% for every token-choice router"


def test_bench_of_routers_routes_by_key_and_fills_the_experts():

    sizes = router.Sizes(B=2, L=16, D=8, E=8, F=8, k=4, V=20)
    assert router._experts_call(sizes)().shape == (8, 16, 8)  # 2 * 16 * 4 rows in 8 groups
    plan = router._router_call(registry.lookup("router", "hash_previous"), sizes)()[0]
    # The first tokens of both sequences, 0 and 16, have no token before them: one row of the table.
    assert plan.expert_TK.shape == (32, 1) and plan.expert_TK[0] == plan.expert_TK[16]
