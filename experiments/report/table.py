"""The table of a study as plain text, Markdown and rows for the page."""

from collections.abc import Sequence
from typing import NamedTuple

from experiments.report.findings import BASELINES
from experiments.results.record import INCOMPLETE, LOWER, ONE_SEED, Arm, Comparison
from experiments.text import NONE, bracketed, number
from moe.analysis import load


class Column(NamedTuple):
    """Heading of a column: `short` for the terminal, `note` says what the number is."""

    key: str
    title: str
    short: str
    note: str


class Cell(NamedTuple):
    """Shown text and the number to sort by (None sorts last)."""

    text: str
    value: float | None = None


LOSSES = (
    Column("arm", "Arm", "arm", "name in the study"),
    Column(
        "loss",
        "Validation loss",
        "val loss",
        "nats per token on held-out text, auxiliary terms excluded: mean ± sd over seeds",
    ),
    Column(
        "difference",
        "Difference to baseline",
        "difference [95 %]",
        "mean paired difference and its 95 % t nats per token; below zero is better",
    ),
    Column("verdict", "Verdict", "verdict", "paired t test with Holm's correction, as declared"),
    Column("bits", "Bits per byte", "bits/byte", "the same loss per byte of text"),
)
ONE_SEED_LOSSES = (
    LOSSES[0],
    Column(
        "loss",
        "Validation loss",
        "val loss",
        "nats per token on held-out text, auxiliary terms excluded",
    ),
    Column(
        "difference",
        "Difference to baseline",
        "difference",
        "paired difference, nats per token; below zero is better",
    ),
    LOSSES[4],
)
COSTS = (
    Column("total", "Params total (M)", "total M", "all parameters, millions"),
    Column("active", "Params active (M)", "active M", "parameters used for one token, millions"),
    Column("flops", "MFLOPs per token", "MFLOPs", "forward pass, dispatch not counted"),
    Column("speed", "Tokens per second", "tokens/s", "training, as measured; depends on machine"),
)
LEFT = ("arm", "verdict")  # columns of words
EMPTY = Cell("")

Row = dict[str, Cell]


def columns(comparison: Comparison) -> tuple[Column, ...]:
    """Those that have something to say of these arms: with one seed there is no verdict."""
    losses = ONE_SEED_LOSSES if comparison.one_seed else LOSSES
    measured = tuple(Column(m.name, m.title, m.short, m.note) for m in load.METRICS)
    body = [_row(arm, comparison) for arm in comparison.arms.values()]
    return tuple(
        column
        for column in (*losses, *COSTS, *measured)
        if any(row.get(column.key, EMPTY).text not in ("", NONE) for row in body)
    )


def rows(comparison: Comparison) -> list[Row]:
    """One row per arm, the baseline and arms of its FLOPs first."""
    return [_filled(_row(arm, comparison), comparison) for arm in comparison.arms.values()]


def reference_rows(comparison: Comparison) -> list[Row]:
    """The unigram entropy and the 5-gram model on the same held-out tokens, where recorded."""
    found = []
    for key, name in BASELINES:
        level = comparison.baselines.get(f"{key}_nats")
        if level is not None:
            bits = comparison.baselines.get(f"{key}_bits_per_byte")
            row = {"arm": Cell(name), "loss": Cell(number(level), level)}
            row["bits"] = Cell(number(bits, 3), bits)
            found.append(_filled(row, comparison))
    return found


def _filled(row: Row, comparison: Comparison) -> Row:
    return {column.key: row.get(column.key, EMPTY) for column in columns(comparison)}


def _row(arm: Arm, comparison: Comparison) -> Row:
    bits, one = arm.val_bits_per_byte.mean, arm.difference
    row = {
        "arm": Cell(arm.name),
        "loss": _loss(arm, comparison),
        "verdict": Cell(arm.verdict),
        "bits": Cell(number(bits, 3), bits),
        "total": _scaled(arm.params_total, 1e6, 2),
        "active": _scaled(arm.params_active, 1e6, 2),
        "flops": _scaled(arm.flops_per_token, 1e6, 2),
        "speed": _scaled(arm.timing.get("tokens_per_s"), 1, 0),
    }
    if one:
        bounds = bracketed(one.low, one.high)
        row["difference"] = Cell(number(one.mean, sign=True) + bounds, one.mean)
    overall = arm.router.overall() if arm.router else {}
    for metric in load.METRICS:
        if metric.name in overall:
            value = overall[metric.name]
            row[metric.name] = Cell(metric.shown(value), value)
    return row


def _loss(arm: Arm, comparison: Comparison) -> Cell:
    """Mean ± sd of the finished seeds; diverged and open seeds are named in the same cell."""
    loss, diverged = arm.val_loss, arm.seeds_diverged
    names = ", ".join(str(seed) for seed in diverged)
    if loss.mean is None:
        return Cell(f"diverged (seed {names})" if diverged else "no finished run")
    text = number(loss.mean)
    if loss.sd is not None:
        text += f" ± {number(loss.sd)}"
    elif not comparison.one_seed:
        text += f" ({ONE_SEED})"
    total = loss.n + len(diverged) + len(arm.seeds_unfinished + arm.seeds_absent)
    if diverged:
        return Cell(f"{text} (seed {names} diverged)", loss.mean)
    if arm.status == INCOMPLETE and loss.n > 1:
        text += f" ({loss.n} of {total} seeds)"
    return Cell(text, loss.mean)


def _scaled(value: float | None, unit: float, digits: int) -> Cell:
    return Cell(number(None if value is None else value / unit, digits), value)


def markdown(comparison: Comparison) -> str:
    """A GitHub table: one row per arm, then the count-based baselines."""
    shown = columns(comparison)
    lines = [
        "| " + " | ".join(column.title for column in shown) + " |",
        "|" + "|".join(" --- " if c.key in LEFT else " ---: " for c in shown) + "|",
    ]
    for row in rows(comparison) + reference_rows(comparison):
        cells = {key: cell.text.replace("|", "\\|") for key, cell in row.items()}
        if cells.get("verdict") == LOWER:
            cells["verdict"] = f"**{LOWER}**"
        lines.append("| " + " | ".join(cells.values()) + " |")
    return "\n".join(lines)


def terminal(comparison: Comparison) -> str:
    """Two blocks of aligned columns, losses above cost and load; plain hyphens for minus."""
    arms, shown = rows(comparison), columns(comparison)
    losses = {column.key for column in LOSSES}
    above = [column for column in shown if column.key in losses]
    below = [shown[0], *(column for column in shown if column.key not in losses)]
    blocks = [_block(above, arms + reference_rows(comparison)), _block(below, arms)]
    return "\n\n".join(blocks).replace("−", "-").replace("–", "-")


def _block(chosen: Sequence[Column], body: list[Row]) -> str:
    grid = [[c.short for c in chosen], *([row[c.key].text for c in chosen] for row in body)]
    widths = [max(len(line[i]) for line in grid) for i in range(len(chosen))]
    grid.insert(1, ["-" * width for width in widths])
    left = [column.key in LEFT for column in chosen]
    return "\n".join(
        "  ".join(
            text.ljust(width) if first else text.rjust(width)
            for text, width, first in zip(line, widths, left, strict=True)
        ).rstrip()
        for line in grid
    )
