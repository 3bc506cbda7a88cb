"""A plot of losses that redraws itself in a notebook while a study trains."""

import io
import time
from collections import defaultdict

from experiments.figures.palette import SETTINGS, style
from moe import registry

Points = list[tuple[int, float]]


class LiveCurves:
    """Takes the rows of runs, as on_log; draws training and held-out loss per arm."""

    def __init__(self, study: str, every_s: float = 2.0):
        """Draws arms of the study in the colours of its report, at most once in `every_s` seconds
        and after each evaluation.
        """
        self.arms = registry.lookup("study", study)
        self.every_s = every_s
        self.train: dict[tuple[str, int], Points] = defaultdict(list)
        self.held_out: dict[tuple[str, int], Points] = defaultdict(list)
        self._last, self._display = 0.0, None

    def __call__(self, arm: str, seed: int, row: dict) -> None:
        """Takes one row of a run."""
        if row["kind"] == "train":
            self.train[arm, seed].append((row["tokens"], row["nats"]))
        elif row["kind"] == "eval":
            self.held_out[arm, seed].append((row["tokens"], row["val_loss"]))
        else:
            return
        if time.monotonic() - self._last > self.every_s or row["kind"] == "eval":
            self.draw()

    def draw(self) -> None:
        """Draws into the same place of the notebook's output."""
        from IPython.display import Image, display

        self._last = time.monotonic()
        picture = io.BytesIO()
        self.figure().savefig(picture, format="png", dpi=90)
        image = Image(picture.getvalue(), format="png")
        if self._display is None:
            self._display = display(image, display_id=True)
        else:
            self._display.update(image)

    def figure(self):
        """The matplotlib figure: lines are training loss, points are held-out loss."""
        import matplotlib
        from matplotlib.figure import Figure

        with matplotlib.rc_context(SETTINGS):
            figure = Figure(figsize=(7, 3.6), layout="constrained")
            axes = figure.subplots()
            for (arm, seed), points in self.train.items():
                colour, marker = style(self.arms, arm)
                label = f"{arm}, seed {seed}"
                axes.plot(*zip(*points, strict=True), color=colour, alpha=0.6, label=label)
                if found := self.held_out[arm, seed]:
                    axes.plot(*zip(*found, strict=True), marker, color=colour, ms=4)
            axes.set(xlabel="training tokens", ylabel="nats per token")
            axes.legend(fontsize="small")
        return figure
