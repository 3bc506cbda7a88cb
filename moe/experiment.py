"""One training run as a value: model, data, optimizer, length, seed."""

import dataclasses
from typing import Annotated

from moe.data.data import SEED, Data
from moe.fields import AtLeast, check_fields
from moe.model.transformer import Transformer
from moe.optimizer.adamw import Optimizer
from moe.params import Size
from moe.registry import Mistake
from moe.routers.contract import Router


@dataclasses.dataclass(frozen=True)
class Train:
    """How long and how often.

    Attributes:
      steps: optimizer steps.
      batch: sequences per optimizer step, over all devices.
      accumulate: parts that a batch is cut into, one after the other, to save memory.
      log_every, eval_every, save_every: in steps; the last step always does all three. The last
        evaluation is of all held-out windows, those before it are of one batch of each desk.
      keep_last: newest checkpoints that are kept; that of step 0 is kept besides.
      keep_best: checkpoints of lowest held-out loss that are kept besides, of those that were saved
        at a step that was evaluated; 0 for none.
    """

    steps: Annotated[int, AtLeast(1)] = 1000
    batch: Annotated[int, AtLeast(1)] = 16
    accumulate: Annotated[int, AtLeast(1)] = 1
    log_every: Annotated[int, AtLeast(1)] = 20
    eval_every: Annotated[int, AtLeast(1)] = 250
    save_every: Annotated[int, AtLeast(1)] = 250
    keep_last: Annotated[int, AtLeast(1)] = 2
    keep_best: Annotated[int, AtLeast(0)] = 1

    def check(self, path: str) -> None:
        """Raises Mistake, one line that starts with `path`, unless parts of a batch are equal."""
        if self.batch % self.accumulate:
            raise Mistake(f"{path}.accumulate={self.accumulate}: must divide batch={self.batch}")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that decides the numbers of a run; equal experiments give equal results.

    Attributes:
      allow_noncausal: take routers that see later tokens at evaluation; the loss of a language
        model is then too low, and the report says so.
    """

    model: Transformer
    data: Data = Data()
    optimizer: Optimizer = Optimizer()
    train: Train = Train()
    seed: SEED = 0
    allow_noncausal: bool = False

    @property
    def tokens_per_call(self) -> int:
        """Tokens that one call of the model sees in training."""
        return self.train.batch // self.train.accumulate * self.data.sequence_length

    def sizes(self) -> tuple[Size, ...]:
        """What a mesh splits: the sequences of one call, and the model's sizes."""
        train, what = self.train, f"train.batch={self.train.batch}"
        rows = train.batch // train.accumulate
        if train.accumulate > 1:
            what += f" in {train.accumulate} microbatches of {rows}"
        return Size(what, "B", rows), *self.model.sizes("model", self.tokens_per_call)

    def validate(self) -> "Experiment":
        """Returns self, or raises Mistake: one line with the dotted path, value and rule."""
        check_fields(self, "")
        self.train.check("train")
        self.data.check("data", self.model.vocab_size)
        self.optimizer.check("optimizer")
        self.model.check("model", self.tokens_per_call)
        for router in self.model.routers:
            own = router == self.model.sparse.router
            self._check_router("model.moe.router" if own else "model.layout.router_there", router)
        return self

    def check_labels(self, dataset) -> None:
        """Raises Mistake, one line, when routers expect other labels than the text has.

        `validate` has seen to those that are known before the text is read.
        """
        names = {"desk": dataset.desks, "class": dataset.classes}.get(self.data.label)
        for router in self.model.routers:
            labels = getattr(router, "labels", None)
            if router.needs_labels and names and labels != len(names):
                raise Mistake(
                    f"model.moe.router.labels={labels}: must be {len(names)}, the number of "
                    f"labels that data.source={self.data.source} has with data.label="
                    f"{self.data.label}"
                )

    def _check_router(self, path: str, router: Router) -> None:
        if not router.causal and not self.allow_noncausal:
            raise Mistake(
                f"{path}={type(router).__name__}: sees later tokens, so the loss of a language "
                "model is too low; take a causal router or set allow_noncausal=true"
            )
        count, labels = self.data.labels, getattr(router, "labels", None)
        if router.needs_labels and count and labels != count:
            raise Mistake(
                f"{path}.labels={labels}: must be {count}, the number of labels with "
                f"data.label={self.data.label}"
            )
