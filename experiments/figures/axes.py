"""What figures share: a sheet, a legend, and the numbers that their texts name."""

from collections.abc import Iterable

from experiments.results.record import Comparison, Routers
from experiments.text import listing, number

WIDTH = 8.6  # inches, beside which a narrow screen scrolls
NARROW = 4.6  # inches, whole and legible on a telephone


def sheet(height: float, width: float = WIDTH):
    """An empty matplotlib figure whose parts make room for each other."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def legend(figure, axes, columns: int = 6) -> None:
    """Above the figure, in so many columns."""
    handles, labels = axes.get_legend_handles_labels()
    spacing = {"handlelength": 1, "handletextpad": 0.4, "columnspacing": 1.6}
    columns = min(columns, len(labels))
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, **spacing)


def floats(values: Iterable[float | None]) -> list[float]:
    """With nan for None, where a line then has a gap."""
    return [float("nan") if value is None else value for value in values]


def millions(tokens: Iterable[int]) -> list[float]:
    """Counts as the axes show them."""
    return [count / 1e6 for count in tokens]


def means(comparison: Comparison) -> str:
    """The validation loss of every arm that has one."""
    losses = {name: arm.val_loss.mean for name, arm in comparison.arms.items()}
    return listing([f"{arm} {number(loss)}" for arm, loss in losses.items() if loss is not None])


def routers(comparison: Comparison) -> dict[str, Routers]:
    """The loads of the arms that route."""
    return {name: arm.router for name, arm in comparison.arms.items() if arm.router}
