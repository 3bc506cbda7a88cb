"""A plot of losses that redraws itself in a notebook while a study trains."""

import io
import time
from collections import defaultdict


class LiveCurves:
    """Give it to `runner.run.run` as on_log; draws training and held-out loss per arm."""

    def __init__(self, every_s: float = 2.0):
        """Redraws at most once in `every_s` seconds, and at the end of each run."""
        self.every_s = every_s
        self.train: dict[str, list[tuple[int, float]]] = defaultdict(list)
        self.held_out: dict[str, list[tuple[int, float]]] = defaultdict(list)
        self._last, self._display = 0.0, None

    def __call__(self, arm: str, seed: int, row: dict) -> None:
        """Takes one row of a run."""
        name = f"{arm}, seed {seed}"
        if row["kind"] == "train":
            self.train[name].append((row["tokens"], row["nats"]))
        elif row["kind"] == "eval":
            self.held_out[name].append((row["tokens"], row["val_loss"]))
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
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 3.6), layout="constrained")
        axes = figure.subplots()
        for i, (name, points) in enumerate(self.train.items()):
            axes.plot(*zip(*points, strict=True), color=f"C{i}", alpha=0.6, label=name)
            if self.held_out[name]:
                axes.plot(*zip(*self.held_out[name], strict=True), "o", color=f"C{i}")
        axes.set(xlabel="training tokens", ylabel="nats per token")
        axes.legend(fontsize="small")
        return figure
