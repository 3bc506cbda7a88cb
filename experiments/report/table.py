"""The table of a study as plain text, Markdown and rows for the page."""

import math
from typing import NamedTuple

from experiments.report.statistics import LOWER, ONE_SEED
from experiments.text import interval, number


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


COLUMNS = (
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
        "mean paired difference and its 95 % t interval, nats per token; below zero is better",
    ),
    Column(
        "verdict", "Verdict", "verdict", "beyond twice the paired-seed sd and interval off zero"
    ),
    Column("bits", "Bits per byte", "bits/byte", "the same loss per byte of text"),
    Column("total", "Params total (M)", "total M", "all parameters, millions"),
    Column("active", "Params active (M)", "active M", "parameters used for one token, millions"),
    Column("flops", "MFLOPs per token", "MFLOPs", "forward pass, dispatch not counted"),
    Column("speed", "Tokens per second", "tokens/s", "training, as measured; depends on machine"),
    Column("entropy", "Load entropy", "entropy", "mean over MoE layers; 1 is even"),
    Column("violation", "Max violation", "max vio", "busiest expert over even share, minus 1"),
    Column("drop", "Drop rate (%)", "drop %", "assignments dropped, mean over MoE layers"),
    Column("dead", "Dead experts", "dead", "experts below 1 % of the even share, all layers"),
)
LOSS_KEYS = ("arm", "loss", "difference", "verdict", "bits")
COST_KEYS = ("arm", "total", "active", "flops", "speed", "entropy", "violation", "drop", "dead")
LEFT = ("arm", "verdict")  # columns of words
EMPTY = Cell("")


def rows(record: dict) -> list[dict[str, Cell]]:
    """One row per arm in the order of the study; keys are those of COLUMNS."""
    return [_row(arm, record["arms"][arm]) for arm in record["arm_order"]]


def reference_rows(record: dict) -> list[dict[str, Cell]]:
    """The unigram entropy and the 5-gram model on the same held-out tokens, where recorded."""
    found = []
    for key, name in (("unigram", "unigram entropy"), ("fivegram", "5-gram model")):
        level = record["baselines"].get(f"{key}_nats")
        if level is not None:
            bits = record["baselines"].get(f"{key}_bits_per_byte")
            row = {column.key: EMPTY for column in COLUMNS}
            row |= {"arm": Cell(name), "loss": Cell(number(level), level)}
            found.append(row | {"bits": Cell(number(bits, 3), bits)})
    return found


def _row(arm: str, entry: dict) -> dict[str, Cell]:
    one, router, bits = entry["difference"], entry["router"], entry["val_bits_per_byte"]["mean"]
    speed = entry["timing"].get("tokens_per_s")
    row = {
        "arm": Cell(arm),
        "loss": _loss(entry),
        "difference": EMPTY,
        "verdict": Cell(entry["verdict"]),
        "bits": Cell(number(bits, 3), bits),
        "total": _scaled(entry["params_total"], 1e6, 2),
        "active": _scaled(entry["params_active"], 1e6, 2),
        "flops": _scaled(entry["flops_per_token"], 1e6, 2),
        "speed": _scaled(speed, 1, 0),
    }
    if one:
        bounds = f" [{interval(one).replace(' to ', ', ')}]" if one["sd"] is not None else ""
        row["difference"] = Cell(number(one["mean"], sign=True) + bounds, one["mean"])
    if router is None:
        return row | dict.fromkeys(("entropy", "violation", "drop", "dead"), EMPTY)
    layers = len(router["layers"])
    entropy, drop = (math.fsum(router[k]) / layers for k in ("load_entropy", "drop_rate"))
    worst, dead = max(router["max_violation"]), math.fsum(router["dead_experts"])
    return row | {
        "entropy": Cell(number(entropy, 3), entropy),
        "violation": Cell(number(worst, 2), worst),
        "drop": Cell(number(100 * drop, 2), drop),
        "dead": Cell(f"{dead:g}" if dead == round(dead) else number(dead, 1), dead),
    }


def _loss(entry: dict) -> Cell:
    """Mean ± sd of the finished seeds; diverged and open seeds are named in the same cell."""
    loss, diverged = entry["val_loss"], entry["seeds_diverged"]
    names = ", ".join(str(seed) for seed in diverged)
    if loss["mean"] is None:
        return Cell(f"diverged (seed {names})" if diverged else "no finished run")
    text = number(loss["mean"])
    text += f" ± {number(loss['sd'])}" if loss["sd"] is not None else f" ({ONE_SEED})"
    total = loss["n"] + len(diverged) + len(entry["seeds_unfinished"] + entry["seeds_absent"])
    if diverged:
        return Cell(f"{text} (seed {names} diverged)", loss["mean"])
    if entry["status"] == "incomplete" and loss["n"] > 1:
        text += f" ({loss['n']} of {total} seeds)"
    return Cell(text, loss["mean"])


def _scaled(value: float | None, unit: float, digits: int) -> Cell:
    return Cell(number(None if value is None else value / unit, digits), value)


def markdown(record: dict) -> str:
    """A GitHub table: one row per arm, then the count-based baselines."""
    lines = [
        "| " + " | ".join(column.title for column in COLUMNS) + " |",
        "|" + "|".join(" --- " if c.key in LEFT else " ---: " for c in COLUMNS) + "|",
    ]
    for row in rows(record) + reference_rows(record):
        cells = [row[column.key].text.replace("|", "\\|") for column in COLUMNS]
        cells[3] = f"**{cells[3]}**" if cells[3] == LOWER else cells[3]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def terminal(record: dict) -> str:
    """Two blocks of aligned columns, losses above cost and load; plain hyphens for minus."""
    arms = rows(record)
    blocks = [_block(LOSS_KEYS, arms + reference_rows(record)), _block(COST_KEYS, arms)]
    return "\n\n".join(blocks).replace("−", "-").replace("–", "-")


def _block(keys: tuple[str, ...], body: list[dict[str, Cell]]) -> str:
    chosen = [column for column in COLUMNS if column.key in keys]
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
