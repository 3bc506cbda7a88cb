"""The router contract: every registered router is measured against what it declares."""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe import registry
from moe.data.counts import Corpus
from moe.routers.hash import Hash
from moe.routers.parts.gates import ScoreGate
from moe.routers.stability import Frozen
from moe.routers.top_k import TopK
from tests.contracts import routers
from tests.contracts.order import declared_ranks
from tests.contracts.routers import CONTRACT, registered

ROUTERS = registered()
ROUTERS["top_k k=1"] = TopK(k=1)
ROUTERS["hash k=3, score gate"] = Hash(k=3, gate=ScoreGate())
ROUTERS["frozen k=1"] = Frozen(k=1)


def each():
    """Every router; settings of a class that came before are left to the slow tier."""
    seen = set()
    for name, router in ROUTERS.items():
        again = type(router) in seen and name in registry.names("router")
        seen.add(type(router))
        yield pytest.param(name, marks=pytest.mark.slow if again else ())


@pytest.mark.parametrize("name", list(each()))
def test_router_keeps_the_contract(name):
    """All of it in one test, since compiling is most of the time."""
    for promise in (*CONTRACT, declared_ranks):
        try:
            promise(ROUTERS[name])
        except AssertionError as error:
            raise AssertionError(f"{name}: {promise.__name__}: {error}") from error


TOY = '''
"""Every token to the expert of its first component's sign; a toy."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from moe.plan import Choices
from moe.registry import register
from moe.routers.contract import Router, Routing

register("router", "toy", "toy_routers.sign:SignRouter", "the sign of a component", "none")


@dataclasses.dataclass(frozen=True)
class SignRouter(Router):
    learned: ClassVar[bool] = False

    def init(self, key, D, E, V):
        return {}

    def __call__(self, params, x_TD, id_T, E, rng):
        expert_TK = (x_TD[:, :1] > 0).astype(jnp.int32)
        return Routing(Choices(expert_TK, jnp.ones(expert_TK.shape, jnp.float32)))
'''


def test_a_new_router_is_one_file_and_one_line(tmp_path, monkeypatch):
    package = tmp_path / "toy_routers"
    package.mkdir()
    (package / "__init__.py").write_text("from toy_routers import sign\n")
    (package / "sign.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_ENTRIES", {k: dict(v) for k, v in registry._ENTRIES.items()})
    import toy_routers  # noqa: F401

    try:
        toy = registered()["toy"]
        for promise in CONTRACT:
            promise(toy)
        assert registry.summary("router", "toy") == "the sign of a component"
    finally:
        for name in [name for name in sys.modules if name.startswith("toy_routers")]:
            del sys.modules[name]


@dataclasses.dataclass(frozen=True)
class Liar(TopK):
    """Declares what it is told to, and does what `top_k` does."""

    lie: str = ""

    def __getattribute__(self, name):
        if name == object.__getattribute__(self, "lie"):
            return not object.__getattribute__(self, name)
        return object.__getattribute__(self, name)


@pytest.mark.parametrize(
    ("lie", "promise"),
    [
        ("causal", routers.declared_causal),
        ("causal_in_training", routers.declared_causal_in_training),
        ("batch_invariant", routers.declared_batch_invariance),
        ("needs_ids", routers.declared_needs),
        ("needs_labels", routers.declared_needs),
        ("learned", routers.gradient_reaches_every_learned_parameter),
    ],
)
def test_a_wrong_declaration_is_found(lie, promise):
    promise(TopK())
    with pytest.raises(AssertionError):
        promise(Liar(lie=lie))


def test_wrong_ranks_are_found():
    @dataclasses.dataclass(frozen=True)
    class Unranked(TopK):
        def ranks(self, E):
            return 1

    declared_ranks(TopK())
    with pytest.raises(AssertionError):
        declared_ranks(Unranked())


def test_a_gate_without_gradient_is_found():
    @dataclasses.dataclass(frozen=True)
    class Renormalised(TopK):
        def gates(self, logits_TE, expert_TK):
            gate_TK = super().gates(logits_TE, expert_TK)
            return gate_TK / gate_TK.sum(axis=1, keepdims=True)

    with pytest.raises(AssertionError, match="w_DE"):
        routers.gradient_reaches_every_learned_parameter(Renormalised(k=1))


def test_a_token_twice_in_one_expert_is_found():
    @dataclasses.dataclass(frozen=True)
    class Double(TopK):
        def assign(self, params, logits, id_T, rng):
            expert_TK = super().assign(params, logits, id_T, rng)
            return jnp.broadcast_to(expert_TK[:, :1], expert_TK.shape)

    with pytest.raises(AssertionError):
        routers.no_token_is_twice_in_one_expert(Double())


def test_who_needs_a_corpus_says_so():
    # What `fit` makes of two texts differs exactly where a router declares that it needs one.
    generator, V = np.random.default_rng(1), routers.V
    texts = [generator.integers(0, high, 4000) for high in (V, V // 2)]
    texts = [Corpus(np.bincount(text, minlength=V), text) for text in texts]
    for name, router in ROUTERS.items():
        params = router.init(jax.random.key(1), routers.D, routers.E, V)
        one, other = (jax.tree.leaves(router.fit(params, routers.E, text, 3)) for text in texts)
        differs = any(np.any(np.asarray(a) != b) for a, b in zip(one, other, strict=True))
        assert differs == router.needs_corpus, name
