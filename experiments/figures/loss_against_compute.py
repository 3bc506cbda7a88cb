"""Validation loss against what training took: seconds on the machine that ran it, and FLOPs."""

from experiments.figures.axes import floats, legend, means, sheet
from experiments.figures.palette import style
from experiments.results.record import Arm, Comparison

START = 0.1  # of training, below which every arm falls alike
TRAINING = 3  # FLOPs of a step over those of its forward pass


class LossAgainstCompute:
    """The curves of validation loss over seconds of stepping, and over training FLOPs."""

    title = "Loss against compute"

    def draw(self, comparison: Comparison):
        arms = [arm for arm in comparison.arms.values() if _timed(arm)]
        if not arms:
            return None
        figure = sheet(3.7)
        panels = figure.subplots(1, 2, sharey=True)
        for arm in arms:
            colour, marker = style(comparison, arm.name)
            for axes, per_token in zip(panels, _prices(arm), strict=True):
                x, y = _curve(arm, per_token)
                axes.plot(x, y, marker + "-", color=colour, ms=3, lw=1.1, label=arm.name)
        panels[0].set(xlabel="seconds of training steps", ylabel="validation loss (nats per token)")
        panels[1].set(xlabel="training FLOPs (10^15)")
        for axes in panels:
            axes.set_xlim(left=0)
        legend(figure, panels[0])
        return figure

    def caption(self, comparison: Comparison) -> str:
        return (
            "The same curves over two other axes: seconds that training steps took, compilation, "
            "evaluation and saving left out, at the mean speed of the arm's runs on the machine "
            "named under Methods; and FLOPs, three times those of the forward pass. Runs that "
            "shared the machine with others were slower than they are alone. The first tenth of "
            "training is off the panels."
        )

    def alt(self, comparison: Comparison) -> str:
        return f"Validation loss over seconds and FLOPs. At the end: {means(comparison)}."


def _timed(arm: Arm) -> bool:
    speed = arm.timing.get("tokens_per_s")
    return bool(speed and arm.flops_per_token and arm.curve.eval.tokens)


def _prices(arm: Arm) -> tuple[float, float]:
    """Seconds, and 10^15 FLOPs, of a token in training; the arm is timed."""
    return 1 / (arm.timing["tokens_per_s"] or 1), TRAINING * (arm.flops_per_token or 0) / 1e15


def _curve(arm: Arm, per_token: float) -> tuple[list[float], list[float]]:
    points = arm.curve.eval
    last = points.tokens[-1]
    kept = [i for i, tokens in enumerate(points.tokens) if tokens >= START * last]
    losses = floats(points.mean)
    return [points.tokens[i] * per_token for i in kept], [losses[i] for i in kept]
