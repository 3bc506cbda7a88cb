"""Every use of randomness in a run has a key of its own."""

import dataclasses
import sys

import jax
import numpy as np
import pytest
from flax import linen

from moe.data.data import Data
from moe.dispatch.einsum import Einsum
from moe.experiment import Experiment, Train
from moe.experts.feed_forward import SwiGLU
from moe.experts.null import NullExperts
from moe.experts.shared import GatedSharedExpert
from moe.model.attention import Attention
from moe.model.layer import MoE
from moe.model.transformer import Transformer
from moe.params import named
from moe.routers.gshard import GShard
from moe.routers.layout import Layout
from moe.routers.parts.losses import Losses
from moe.routers.parts.noise import Noise
from moe.routers.stability import Redrawn
from moe.training import step
from tests.fakes.data import SyntheticDataset
from tests.fakes.routed import NO_IDS, E, params_of, skewed

SAMPLERS = ("normal", "uniform", "gumbel", "randint", "bits", "truncated_normal", "permutation")
LOSSES = Losses(scope="sequence")  # no second pass over the microbatches
N, A, G, STEPS = 4, 2, 2, 2  # layers, microbatches, groups, steps


@dataclasses.dataclass(frozen=True)
class Loud(Noise):
    """On the router's input and on its logits."""

    def perturb_input(self, x_TD, rng):
        return x_TD + jax.random.normal(rng, x_TD.shape)

    def perturb_logits(self, logits_TE, deviation_TE, rng):
        return logits_TE + jax.random.normal(rng, logits_TE.shape)


@dataclasses.dataclass(frozen=True)
class InTurn(Layout):
    """Odd MoE layers have another router: two places in a period, and two periods."""

    def router(self, n, layers, default):
        return GShard(noise=Loud(), losses=LOSSES) if n % 2 else default

    def check(self, path, layers, num_experts):
        pass


EXPERIMENT = Experiment(
    Transformer(
        vocab_size=16,
        num_layers=N,
        model_width=8,
        attention=Attention(num_heads=1, num_kv_heads=1, head_width=4),
        moe=MoE(
            num_experts=4,
            router=Redrawn(noise=Loud(), losses=LOSSES),
            dispatch=Einsum(2.0, group_size=8),
            experts=SwiGLU(4),
            shared=GatedSharedExpert(SwiGLU(4)),
            null=NullExperts(constant=1),
        ),
        moe_layers=tuple(range(N)),
        layout=InTurn(),
        tied_head=False,
    ),
    Data(sequence_length=8),
    train=Train(batch=A * G, accumulate=A),
)


def record(monkeypatch):
    """Where keys are drawn from -> the keys, filled as programs run that are traced from now on."""
    drawn = {}

    def watched(sampler):
        def draw(key, *args, **kwargs):
            frame = sys._getframe(1)
            use = frame.f_code.co_filename, frame.f_lineno

            def note(words):
                drawn.setdefault(use, set()).add(tuple(np.asarray(words).tolist()))

            jax.debug.callback(note, jax.random.key_data(key))
            return sampler(key, *args, **kwargs)

        return draw

    for name in SAMPLERS:
        monkeypatch.setattr(jax.random, name, watched(getattr(jax.random, name)))
    normal = linen.initializers.normal
    monkeypatch.setattr(linen.initializers, "normal", lambda deviation: watched(normal(deviation)))
    return drawn


@pytest.mark.parametrize("router", [Redrawn(noise=Loud()), GShard(noise=Loud())])
def test_all_keys_of_a_router_differ(monkeypatch, router):
    params, x_TD = params_of(router), skewed()
    drawn = record(monkeypatch)
    router(params, x_TD, NO_IDS, E, jax.random.key(0))
    jax.effects_barrier()
    keys = [key for keys in drawn.values() for key in keys]
    assert len(set(keys)) == len(keys) == len(drawn) == 3


@pytest.mark.slow
def test_all_keys_of_a_run_differ(monkeypatch):
    drawn = record(monkeypatch)
    dataset = SyntheticDataset(16, length=8)
    state = step.init(EXPERIMENT, dataset.corpus)
    jax.effects_barrier()
    # In each of 4 layers: 4 of attention, 3 matrices each of the experts and of the shared one, the
    # shared one's gate, two of the constant expert, the router's; and the embedding and the head.
    made = [key for keys in drawn.values() for key in keys]
    assert len(set(made)) == len(made) == N * (4 + 3 + 3 + 1 + 2 + 1) + 2
    drawn_before = {use: set(keys) for use, keys in drawn.items()}
    for s in range(STEPS):
        state, _ = step.train_step(EXPERIMENT, state, dataset.batch(0, s, A * G))
    jax.effects_barrier()
    new = {use: keys - drawn_before.get(use, set()) for use, keys in drawn.items()}
    # Noise on the input, noise on the logits, and the projection or the second expert: three uses
    # in each layer, group, microbatch and step.
    drawn_now = [key for keys in new.values() for key in keys]
    assert len(set(drawn_now)) == len(drawn_now) == 3 * N * G * A * STEPS
    assert not set(drawn_now) & set(made)
    uses = {line for (_, line), keys in new.items() if keys}
    assert len(uses) == 4, uses  # the routers share the lines of their noise


def test_names_of_keys_never_meet_numbers():
    key = jax.random.key(0)
    words = jax.random.key_data(jax.random.split(key, 1000)).tolist()
    steps = [jax.random.key_data(jax.random.fold_in(key, s)).tolist() for s in range(8)]
    assert steps == words[:8]  # which is why numbers alone do not part uses
    uses = ["steps", "input noise", "logit noise", "projection", "second expert", "gate", "fit"]
    named_words = [jax.random.key_data(named(key, use)).tolist() for use in uses]
    assert len({tuple(w) for w in words + named_words}) == len(words) + len(uses)
    # sha256sum of "steps" begins with b7595e2a, whose first bit is 1: the same at every time.
    assert named_words[0] == jax.random.key_data(jax.random.fold_in(key, 0xB7595E2A)).tolist()
