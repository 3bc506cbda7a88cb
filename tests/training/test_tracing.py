"""Traces of models: what they say is what the run's evaluation and its routers say."""

import dataclasses

import jax
import numpy as np
import pytest

from moe import registry
from moe.analysis import trace
from moe.analysis.trace import About
from moe.data.windows import Text
from moe.dispatch.einsum import Einsum
from moe.experts.null import NullExperts
from moe.model.depth import map_routers
from moe.model.multihash import MultiHash
from moe.params import with_state
from moe.registry import Mistake
from moe.routers.hash import Hash
from moe.routers.layout import First
from moe.routers.relu import ReLURouter
from moe.routers.top_k import TopK
from moe.training import step, tracing
from moe.training.evaluate import evaluate
from tests.contracts.routers import registered
from tests.training.test_train import DATASET, experiment

E, L = 4, 16


def subject(run, params=None, dataset=DATASET):
    """A model of the run with its first parameters, and a text."""
    params = step.init(run, dataset.corpus).params if params is None else params
    said = About("made", "", "", 0, 0, "", (), (), (), "0", run.model.num_layers)
    return tracing.Subject(run, params, dataset, said)


def traced(of, tokens=None):
    return trace.join(list(tracing.of_held_out(of, tokens)))


def with_layer(run, **changes):
    moe = dataclasses.replace(run.model.moe, **changes)
    return dataclasses.replace(run, model=run.model.clone(moe=moe))


def fitting(router):
    """The router with at most two of four experts, and the labels of the text."""
    if getattr(router, "k", 1) > 2:
        router = dataclasses.replace(router, k=2)
    if getattr(router, "groups", 1) > 2:
        router = dataclasses.replace(router, groups=2, groups_kept=1)
    return dataclasses.replace(router, labels=3) if hasattr(router, "labels") else router


ROUTERS = {name: fitting(router) for name, router in registered().items() if name != "soft"}
ROUTERS["relu, most 2"] = ReLURouter(k=1, most=2)
RUNS = {name: experiment(router) for name, router in ROUTERS.items()}
RUNS["drops"] = with_layer(experiment(TopK(k=2)), dispatch=Einsum(0.5, group_size=32))
RUNS["drops, one group"] = with_layer(experiment(TopK(k=2)), dispatch=Einsum(0.5, group_size=0))
RUNS["null experts"] = with_layer(experiment(TopK(k=2)), null=NullExperts())
RUNS["drops at evaluation"] = with_layer(
    experiment(), dispatch=Einsum(2.0, group_size=32), eval_capacity_factor=0.5
)
RUNS["two kinds of layers"] = dataclasses.replace(
    experiment(TopK(k=2)), model=experiment(TopK(k=2)).model.clone(layout=First(Hash(), 1))
)
RUNS["rematerialised"] = dataclasses.replace(
    experiment(TopK(k=2)), model=experiment(TopK(k=2)).model.clone(remat="period")
)
RUNS["multihash"] = dataclasses.replace(
    experiment(), model=experiment().model.clone(moe=MultiHash(num_experts=4))
)
ALWAYS = (  # one of each way of making a trace; the rest is the slow tier's
    "top_k",
    "expert_choice",
    "batch_priority",
    "relu, most 2",
    "labelled",
    "drops at evaluation",
    "null experts",
    "two kinds of layers",
)


def cases():
    for name in RUNS:
        yield pytest.param(name, marks=() if name in ALWAYS else pytest.mark.slow)


@pytest.mark.parametrize("name", list(cases()))
def test_a_trace_says_what_the_evaluation_says(name, tmp_path):
    of = subject(RUNS[name])
    about = trace.write(tmp_path / "t", tracing.of_held_out(of))
    found, wanted = trace.read(tmp_path / "t"), evaluate(of.experiment, of.params, DATASET)
    assert trace.validate(tmp_path / "t") == about
    assert found.tokens == 3 * 5 * L  # desks, windows of each
    assert found.loss_T.mean() == pytest.approx(wanted.val_loss, rel=1e-5)
    for y in range(3):
        mean = found.loss_T[found.desk_T == y].mean()
        assert mean == pytest.approx(wanted.nats_Y[y] / wanted.tokens_Y[y], rel=1e-5)
    experts = of.experiment.model.moe.routed_experts
    for n, layer in enumerate(found.layers):
        assert layer.router == type(of.experiment.model.routers[n]).__name__
        made_TK = layer.expert_TK < experts
        for y in range(3):
            asked = layer.expert_TK[(found.desk_T == y)[:, None] & made_TK]
            load_E = np.bincount(asked, minlength=experts)
            np.testing.assert_array_equal(load_E, wanted.load_YNE[y, n])
        assert (made_TK & ~layer.kept_TK).sum() == wanted.dropped_N[n]
        assert (~layer.kept_TK.any(axis=1)).sum() == wanted.unserved_N[n]
        check_linear(of.experiment.model.routers[n], layer)


def check_linear(router, layer):
    """Choices, their order and margins from inputs and matrix, where the logits alone decide."""
    S = len(layer.sample_S)
    assert S == 240 and layer.input_SD.shape == (S, 16)  # all of so few
    if layer.matrix_DE is None or type(router) is not TopK or router.groups > 1:
        return
    logits_SE = layer.input_SD.astype(np.float64) @ layer.matrix_DE
    order_SE = np.argsort(-logits_SE, axis=1)
    np.testing.assert_array_equal(layer.expert_TK, order_SE[:, : router.k])
    ranked_SE = np.take_along_axis(logits_SE, order_SE, axis=1)
    margin_S = ranked_SE[:, router.k - 1] - ranked_SE[:, router.k]
    np.testing.assert_allclose(layer.margin_T, margin_S, atol=1e-5)


def test_the_plan_of_a_known_table_is_traced():
    # Expert of a token: its id mod 4, and the one after it; a table has no margin, no matrix.
    run = experiment(Hash(k=2))
    params = step.init(run, DATASET.corpus).params
    first_V = np.arange(32, dtype=np.int32) % E
    table_VK = np.stack([first_V, (first_V + 1) % E], axis=1)
    params = map_routers(params, lambda p, n: with_state(p, expert_VK=table_VK))
    found = traced(subject(run, params))
    for layer in found.layers:
        np.testing.assert_array_equal(layer.expert_TK, table_VK[found.id_T])
        np.testing.assert_array_equal(layer.gate_TK, 0.5)
        assert layer.kept_TK.all() and np.isnan(layer.margin_T).all()
        assert layer.matrix_DE is None
    np.testing.assert_array_equal(found.position_T, np.tile(np.arange(L), 15))
    windows = {int(d): found.id_T[found.document_T == d] for d in range(15)}
    for y, desk in enumerate(DATASET.desks):  # document w of desk y is its window w
        batch = DATASET.held_out(desk)
        for w in range(5):
            np.testing.assert_array_equal(windows[5 * y + w], batch.id_BL[w])
            own = found.document_T == 5 * y + w
            np.testing.assert_array_equal(found.target_T[own], batch.target_BL[w])
            assert set(found.desk_T[own]) == {y}


def test_what_an_expert_has_no_room_for_is_asked_and_not_kept():
    # All tokens ask expert 0 first, then 1; groups of 32, capacity 0.5 * 32 * 2 / 4 = 8 slots each:
    # of every two windows the first 8 tokens are served.
    run = with_layer(experiment(Hash(k=2)), dispatch=Einsum(0.5, group_size=32))
    params = step.init(run, DATASET.corpus).params
    table_VK = np.tile(np.array([[0, 1]], np.int32), (32, 1))
    params = map_routers(params, lambda p, n: with_state(p, expert_VK=table_VK))
    layer = traced(subject(run, params)).layers[1]
    np.testing.assert_array_equal(layer.expert_TK, [[0, 1]] * 240)
    group = np.repeat(np.arange(32) < 8, 2).reshape(1, 32, 2)
    whole = layer.kept_TK[:192].reshape(6, 32, 2)  # 12 windows in full batches of four
    np.testing.assert_array_equal(whole, group.repeat(6, axis=0))


def test_a_layer_is_traced_as_the_router_is_called():
    run = experiment(TopK(k=2))
    of = subject(run)
    found = traced(of)
    routers = []
    map_routers(of.params, lambda p, n: routers.append(p) or p)
    for n, layer in enumerate(found.layers):
        routing = TopK(k=2)(routers[n], layer.input_SD, None, E, None)
        np.testing.assert_array_equal(layer.expert_TK, routing.plan.expert_TK)
        np.testing.assert_allclose(layer.gate_TK, routing.plan.gate_TK, atol=1e-6)
        np.testing.assert_array_equal(layer.matrix_DE, routers[n]["w_DE"])


def test_parts_of_a_multihash_layer_are_its_experts():
    run = experiment()
    run = dataclasses.replace(run, model=run.model.clone(moe=MultiHash(num_experts=4)))
    layer = traced(subject(run)).layers[0]
    blocks = layer.expert_TK // 2  # two blocks of two parts
    np.testing.assert_array_equal(blocks, [[0, 1]] * 240)


def test_what_has_no_choices_is_refused():
    for router, line in ((None, "a dense model"), ("soft", "mixes all tokens into every slot")):
        run = experiment(router and registry.lookup("router", router))
        with pytest.raises(Mistake, match=line):
            traced(subject(run))


def test_some_tokens_are_of_all_desks():
    found = traced(subject(experiment(Hash())), tokens=100)
    assert found.tokens == 96  # six whole windows, two of each desk
    np.testing.assert_array_equal(np.bincount(found.desk_T), [32, 32, 32])


def text(*parts, desks=("ones", "new")):
    """A text whose parts are (ids, desk, document)."""
    rows = [(np.array(ids, np.uint16), desk, desk, document) for ids, desk, document in parts]
    return Text(desks, desks, 100, lambda: iter(rows))


def test_other_text_is_traced_in_its_order_and_cut_into_windows():
    # 40 + 1 and 30 tokens: 71 tokens are 4 windows of 16, each with the token after it; 6 are left.
    of = subject(experiment(Hash()))
    ids = np.arange(71) % 31
    found = trace.join(list(tracing.of_text(of, text((ids[:41], 1, 0), (ids[41:], 0, 1)))))
    np.testing.assert_array_equal(found.id_T, ids[:64])
    np.testing.assert_array_equal(found.target_T, ids[1:65])
    np.testing.assert_array_equal(found.document_T, np.arange(64) >= 41)
    np.testing.assert_array_equal(found.desk_T, np.arange(64) < 41)
    assert found.about.desks == ("ones", "new") and found.length == L
    short = trace.join(list(tracing.of_text(of, text((ids[:9], 0, 0)))))
    assert (short.tokens, short.length) == (8, 8)
    few = trace.join(list(tracing.of_text(of, text((ids, 0, 0)), tokens=40)))
    np.testing.assert_array_equal(few.id_T, ids[:32])
    with pytest.raises(Mistake, match="must have two tokens, has 1"):
        list(tracing.of_text(of, text((ids[:1], 0, 0))))


def test_pieces_of_a_long_text_are_the_whole_of_it(monkeypatch):
    monkeypatch.setattr("moe.data.windows.AT_ONCE", 64)
    monkeypatch.setattr(tracing, "SAMPLE", 20)
    of, ids = subject(experiment(TopK(k=1))), np.arange(16 * 23 + 1) % 31
    parts = [(ids[i : i + 50], 0, 0) for i in range(0, len(ids), 50)]
    found = trace.join(list(tracing.of_text(of, dataclasses.replace(text(*parts), bytes=736))))
    np.testing.assert_array_equal(found.id_T, ids[:-1])
    # 736 bytes of 2 a token are 368 tokens; every 368 // 20 | 1 = 19th is kept: 20 of them.
    np.testing.assert_array_equal(found.layers[0].sample_S, np.arange(0, 368, 19))
    monkeypatch.setattr("moe.data.windows.AT_ONCE", 2**16)
    whole = trace.join(list(tracing.of_text(of, text(*parts))))
    np.testing.assert_allclose(whole.loss_T, found.loss_T, rtol=1e-5)
    np.testing.assert_array_equal(whole.layers[1].expert_TK, found.layers[1].expert_TK)


def test_a_guided_router_wants_desks_that_it_knows():
    of = subject(experiment(ROUTERS["labelled"]))
    with pytest.raises(Mistake, match="--text: new: the router is guided by data.label=desk"):
        list(tracing.of_text(of, text((np.arange(40), 0, 0))))
    known = text((np.arange(30), 0, 0), desks=("ones",))
    found = trace.join(list(tracing.of_text(of, known)))
    np.testing.assert_array_equal(found.layers[0].expert_TK % 3, 0)  # experts of label 0: 0 and 3


def test_the_fingerprint_tells_parameters_apart():
    one, two = (subject(experiment(seed)).params for seed in (TopK(k=1), TopK(k=2)))
    assert tracing.fingerprint(one) == tracing.fingerprint(two)  # of the same shapes and seed
    moved = jax.tree.map(lambda a: a, one)
    moved["embedding_VD"] = moved["embedding_VD"].at[3, 3].add(1e-3)
    assert tracing.fingerprint(moved) != tracing.fingerprint(one)
