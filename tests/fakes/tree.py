"""A small tree of dataclasses with two named parts, for tests of names and fields."""

import dataclasses
from typing import Any, ClassVar, Literal, Protocol

import flax.linen as nn
import pytest

from moe import registry


class Engine(Protocol):
    kind: ClassVar[str] = "router"


@dataclasses.dataclass(frozen=True)
class Diesel(Engine):
    k: int = 2
    bias: float = 0.5


@dataclasses.dataclass(frozen=True)
class Electric(Engine):
    cells: tuple[int, ...] = (1, 2)


BIG = Electric(cells=(9,))


@dataclasses.dataclass(frozen=True)
class Mixture:
    router: Engine = Diesel()
    spare: Engine | None = None
    num_experts: int = 8


@dataclasses.dataclass(frozen=True)
class Train:
    steps: int = 10
    rate: float = 1e-3
    clip: float | None = None
    seed: "int | None" = None
    verbose: bool = False
    tokenizer: Literal["bpe", "bytes"] = "bpe"
    precision: Literal["high", "low"] | None = None
    layers: tuple[int, ...] = (1, 3)
    label: str = "plain"
    when: int | Literal["never"] = "never"
    anything: Any = None


class Network(nn.Module):
    width: int = 4
    moe: Mixture | None = Mixture()


@dataclasses.dataclass(frozen=True)
class Trial:
    model: Network = Network()
    train: Train = Train()


@pytest.fixture(autouse=True)
def own_names(monkeypatch):
    """Replaces the registered routers by the two engines above."""
    monkeypatch.setattr(registry, "_ENTRIES", {})
    monkeypatch.setitem(registry.HOMES, "router", "moe.registry")
    registry.register("router", "diesel", f"{__name__}:Diesel", "burns oil")
    registry.register("router", "electric", f"{__name__}:Electric", "burns nothing", "1701.06538")
    registry.register("router", "electric_big", f"{__name__}:BIG", "a preset")
