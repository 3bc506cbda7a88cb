"""One training run as a value: model, data, optimizer, length, seed."""

import dataclasses
import math
from typing import Annotated

from moe.data.data import SEED, Data
from moe.fields import Above, AtLeast, check_fields
from moe.model.transformer import Transformer
from moe.optimizer.adamw import Optimizer
from moe.params import Size
from moe.registry import Mistake
from moe.routers.contract import Router

# Up to about 4 epochs repeated text is nearly as good as new text (Muennighoff et al., 2305.16264);
# what memory of tokens does to hash layers is another question, so 2 are told.
REPEATED = 2


@dataclasses.dataclass(frozen=True)
class Train:
    """How long and how often.

    Attributes:
      steps: optimizer steps.
      batch: sequences per optimizer step, over all devices.
      accumulate: parts that a batch is cut into, one after the other, to save memory.
      log_every, eval_every, save_every: in steps; the last step always does all three. The last
        evaluation is of all held-out windows, those before it are of as many batches as there are
        desks, the same share of each desk's windows.
      keep_last: newest checkpoints that are kept; that of step 0 is kept besides.
      keep_best: checkpoints of lowest held-out loss that are kept besides, of those that were saved
        at a step that was evaluated; 0 for none.
      max_epochs: a run that reads its text more often than that is refused; no part of what a run
        is, so it may be raised when one is gone on with.
    """

    steps: Annotated[int, AtLeast(1)] = 1000
    batch: Annotated[int, AtLeast(1)] = 16
    accumulate: Annotated[int, AtLeast(1)] = 1
    log_every: Annotated[int, AtLeast(1)] = 20
    eval_every: Annotated[int, AtLeast(1)] = 250
    save_every: Annotated[int, AtLeast(1)] = 250
    keep_last: Annotated[int, AtLeast(1)] = 2
    keep_best: Annotated[int, AtLeast(0)] = 1
    max_epochs: Annotated[float, Above(0)] = 4.0

    def check(self, path: str) -> None:
        """Raises Mistake, one line that starts with `path`, unless parts of a batch are equal."""
        if self.batch % self.accumulate:
            raise Mistake(f"{path}.accumulate={self.accumulate}: must divide batch={self.batch}")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that decides the numbers of a run; equal experiments give equal results.

    Equal to the last bit on equal processors with equal versions and as many cores for the
    process, which decide how XLA rounds on CPU; else up to rounding.

    Attributes:
      allow_noncausal: take layers whose outputs depend on later tokens at evaluation, by the router
        or by who is dropped; the loss of a language model is then too low, and the report says so.
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

    @property
    def tokens(self) -> int:
        """Tokens of all training steps."""
        return self.train.steps * self.train.batch * self.data.sequence_length

    def epochs(self, one_pass: int) -> str:
        """How often a training text of so many tokens is read, in one line."""
        often = self.tokens / one_pass
        line = f"{often:.2f} epochs: {self.tokens:,} training tokens, {one_pass:,} in one pass"
        return f"{line}; repeated text is learned by heart" if often > REPEATED else line

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
        self.check_drops(devices=1)
        return self

    def check_text(self, dataset) -> None:
        """Raises Mistake, one line, for routers or a length that the text does not fit."""
        self.check_labels(dataset)
        allowed, one_pass = self.train.max_epochs, dataset.one_pass
        if self.tokens > allowed * one_pass:
            raise Mistake(
                f"train.max_epochs={allowed:g}: train.steps={self.train.steps} takes "
                f"{self.epochs(one_pass)}; take fewer steps, a longer data.source, or set "
                f"train.max_epochs={math.ceil(self.tokens / one_pass)}"
            )

    def check_drops(self, devices: int) -> None:
        """Raises Mistake, one line, where later tokens decide what is dropped of earlier ones.

        devices: that share the experts, whose exchanges may have too little room.
        """
        if self.allow_noncausal or self.model.causal(self.tokens_per_call, devices):
            return
        name = type(self.model.sparse.dispatch).__name__
        spread = f" with experts on {devices} devices" if devices > 1 else ""
        raise Mistake(
            f"model.moe.dispatch={name}: a later token can take an earlier one's place{spread}, so "
            "the loss of a language model is too low; take model.moe.dispatch.priority=token_major "
            "where there is one, what drops nothing (ragged, auto, overflow=exact) or set "
            "allow_noncausal=true"
        )

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
