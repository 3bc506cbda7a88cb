"""Figures of a study: loss curves, by desk and against cost; heat maps are in heatmaps.py."""

import re
from pathlib import Path
from typing import NamedTuple

from experiments.figures import captions, heatmap
from experiments.figures.palette import INK, MUTED, RULE, SETTINGS, THEME, style

WIDTH = 8.6  # inches


class Drawing(NamedTuple):
    """A finished figure; `svg` is for a page that defines --muted and --rule."""

    name: str
    title: str
    caption: str
    alt: str
    svg: str


def draw(record: dict, folder: Path) -> list[Drawing]:
    """Writes every figure that the data allow as PNG and SVG to the folder and returns them."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    folder.mkdir(parents=True, exist_ok=True)
    plots = {
        "loss_curves": _loss_curves,
        "loss_by_desk": _loss_by_desk,
        "expert_load": heatmap.expert_load,
        "desks_by_expert": heatmap.desks_by_expert,
        "loss_against_cost": _loss_against_cost,
    }
    drawings = []
    with matplotlib.rc_context(matplotlib.rcParamsDefault):
        matplotlib.rcParams.update(SETTINGS)
        for name, plot in plots.items():
            figure = plot(record)
            path, bitmap = folder / f"{name}.svg", folder / f"{name}.png"
            if figure is None:  # one of an earlier report would no longer fit
                path.unlink(missing_ok=True)
                bitmap.unlink(missing_ok=True)
                continue
            FigureCanvasAgg(figure)
            _settle(figure)
            figure.savefig(bitmap, dpi=150, metadata={"Software": None})
            figure.savefig(path, metadata={"Date": None, "Creator": None})
            title, caption, alt = captions.describe(name, record)
            svg = _themed(path.read_text(encoding="utf-8"), name, alt)
            drawings.append(Drawing(name, title, caption, alt, svg))
    return drawings


def _settle(figure) -> None:
    """Fixes the layout on a grid of 1e-5, as the solver's last digits vary from run to run."""
    figure.draw_without_rendering()
    places = [(axes, axes.get_position().bounds) for axes in figure.axes]
    figure.set_layout_engine("none")
    for axes, bounds in places:
        axes.set_position([round(bound, 5) for bound in bounds])


def _themed(svg: str, name: str, alt: str) -> str:
    """The SVG element alone: colours follow the page, ids are unique to the figure, alt text."""
    from html import escape

    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    for colour, value in THEME.items():
        svg = svg.replace(colour, value)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    size = r'width="[\d.]+pt" height="[\d.]+pt"'
    label = f'role="img" aria-label="{escape(alt)}"'
    return re.sub(size, lambda _: label, svg, count=1)


def _figure(height: float):
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), layout="constrained")


def _legend(figure, axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    columns = min(6, len(labels))
    spacing = {"handlelength": 1, "handletextpad": 0.4, "columnspacing": 1.6}
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, **spacing)


def _floats(values: list) -> list[float]:
    return [float("nan") if value is None else value for value in values]


def _smooth(values: list, share: float = 0.05) -> list[float]:
    """Centred running mean over about that share of the points; a gap stays a gap."""
    import numpy

    values = numpy.array(_floats(values))
    half = int(share * len(values) / 2)
    windows = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return [float(window.mean()) for window in windows]


def _loss_curves(record: dict):
    arms = {arm: record["arms"][arm] for arm in record["arm_order"]}
    arms = {arm: entry for arm, entry in arms.items() if entry["curve"]["train"]["tokens"]}
    if not arms:
        return None
    figure = _figure(4.1)
    loss, gap = figure.subplots(1, 2, width_ratios=[1, 1])
    for arm, entry in arms.items():
        colour, marker = style(record, arm)
        train, points = entry["curve"]["train"], entry["curve"]["eval"]
        label = arm if entry["curve"]["finished"] else f"{arm} (unfinished)"
        x = [tokens / 1e6 for tokens in train["tokens"]]
        low, high = _smooth(train["low"]), _smooth(train["high"])
        loss.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
        loss.plot(x, _smooth(train["mean"]), color=colour, lw=1.2)
        x = [tokens / 1e6 for tokens in points["tokens"]]
        loss.plot(x, _floats(points["mean"]), marker, color=colour, ms=3.5, label=label)
        if arm != record["baseline"]:
            _gap_curve(gap, entry["curve"]["eval_difference"], colour, marker)
    _reference_lines(loss, record, arms)
    _clip_start(loss, [entry["curve"]["train"] for entry in arms.values()])
    _clip_gap(gap, [entry["curve"]["eval_difference"] for entry in arms.values()])
    gap.axhline(0, color=INK, lw=1)
    loss.set(xlabel="training tokens (millions)", ylabel="nats per token", title="Loss")
    gap.set(xlabel="training tokens (millions)", ylabel="nats per token")
    gap.set_title(f"Validation loss minus {record['baseline']}")
    _legend(figure, loss)
    return figure


def _gap_curve(axes, band: dict, colour: str, marker: str) -> None:
    x = [tokens / 1e6 for tokens in band["tokens"]]
    low, high = _floats(band["low"]), _floats(band["high"])
    axes.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
    axes.plot(x, _floats(band["mean"]), marker + "-", color=colour, ms=4, lw=1.2)


def _reference_lines(axes, record: dict, arms: dict) -> None:
    """Unigram entropy and 5-gram loss, labelled on the side where the curves are not."""
    ends = [entry["val_loss"]["mean"] for entry in arms.values()]
    ends = [end for end in ends if end is not None]
    for key, name in (("unigram_nats", "unigram entropy"), ("fivegram_nats", "5-gram model")):
        level = record["baselines"].get(key)
        if level is None or not ends:
            continue
        axes.axhline(level, color=MUTED, lw=0.9, ls=(0, (4, 3)))
        above = level > max(ends)
        axes.annotate(
            name,
            (0.99 if above else 0.02, level),
            xycoords=("axes fraction", "data"),
            xytext=(0, 2 if above else -2),
            textcoords="offset points",
            ha="right" if above else "left",
            va="bottom" if above else "top",
            color=MUTED,
            fontsize=8,
        )


def _clip_start(axes, bands: list[dict]) -> None:
    """Leaves the first 3 % of training off the top, where every arm falls alike."""
    last = max(band["tokens"][-1] for band in bands)
    tops = [
        mean
        for band in bands
        for tokens, mean in zip(band["tokens"], band["mean"], strict=True)
        if tokens >= 0.03 * last and mean is not None
    ]
    lowest = axes.dataLim.y0
    if tops and max(tops) > lowest:
        axes.set_ylim(lowest - 0.06 * (max(tops) - lowest), max(tops))
    axes.set_xlim(left=0)


def _clip_gap(axes, bands: list[dict]) -> None:
    """Fits the last four fifths of training, so that early noise does not set the scale."""
    last = max((band["tokens"][-1] for band in bands if band["tokens"]), default=0)
    kept = [0.0]
    for band in bands:
        for tokens, low, high in zip(band["tokens"], band["low"], band["high"], strict=True):
            if tokens >= 0.2 * last and low is not None:
                kept += [low, high]
    margin = 0.06 * (max(kept) - min(kept))
    if margin > 0:
        axes.set_ylim(min(kept) - margin, max(kept) + margin)
    axes.set_xlim(left=0)


def _loss_by_desk(record: dict):
    """Dot plot: paired difference to the baseline, all text first, then each desk."""
    arms = [arm for arm in record["arm_order"] if record["arms"][arm]["difference"]]
    if not arms:
        return None
    desks = dict.fromkeys(d for arm in arms for d in record["arms"][arm]["desk_difference"])
    groups = ["all text", *desks]
    pitch = len(arms) + 1.4
    figure = _figure(0.9 + 0.14 * pitch * len(groups))
    axes = figure.subplots()
    for row, arm in enumerate(arms):
        entry = record["arms"][arm]
        differences = {"all text": entry["difference"], **entry["desk_difference"]}
        colour, marker = style(record, arm)
        for group, name in enumerate(groups):
            one = differences.get(name)
            if one is None:
                continue
            y = group * pitch + row
            if one["low"] is not None:
                axes.plot([one["low"], one["high"]], [y, y], color=colour, lw=1.6)
            axes.plot(one["mean"], y, marker, color=colour, ms=5.5, label=arm if not group else "")
    axes.axvline(0, color=INK, lw=1)
    middle = (len(arms) - 1) / 2
    axes.set_yticks([group * pitch + middle for group in range(len(groups))], groups)
    for group in range(0, len(groups), 2):
        start = group * pitch - (pitch - len(arms) + 1) / 2
        axes.axhspan(start, start + pitch, color=RULE, alpha=0.35, lw=0)
    axes.set_ylim(len(groups) * pitch - 1.2, -1.2)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(f"validation loss minus {record['baseline']}, nats per token (left is better)")
    _legend(figure, axes)
    return figure


def _shifts(record: dict, key: str) -> dict[str, tuple[float, float]]:
    """Sideways shift in inches that sets arms of equal cost (within 2 %) side by side."""
    groups: list[list[str]] = []
    arms = record["arms"]
    finished = [arm for arm in record["arm_order"] if arms[arm][key]]
    for arm in sorted(finished, key=lambda arm: arms[arm][key]):
        if groups and arms[arm][key] <= 1.02 * arms[groups[-1][0]][key]:
            groups[-1].append(arm)
        else:
            groups.append([arm])
    shifts = {}
    for group in groups:
        group.sort(key=record["arm_order"].index)
        shifts |= {a: (0.11 * (i - (len(group) - 1) / 2), 0.0) for i, a in enumerate(group)}
    return shifts


def _loss_against_cost(record: dict):
    from matplotlib.transforms import ScaledTranslation

    figure = _figure(3.5)
    panels = figure.subplots(1, 2, sharey=True)
    keys = (
        ("flops_per_token", "active MFLOPs per token"),
        ("params_total", "total parameters (millions)"),
    )
    for axes, (key, label) in zip(panels, keys, strict=True):
        shifts = _shifts(record, key)
        for arm in record["arm_order"]:
            entry, (colour, marker) = record["arms"][arm], style(record, arm)
            loss = entry["val_loss"]
            if loss["mean"] is None or entry["seeds_diverged"]:
                continue
            x, sd = entry[key] / 1e6, loss["sd"] or 0.0
            side = axes.transData + ScaledTranslation(*shifts[arm], figure.dpi_scale_trans)
            ends = [loss["mean"] - sd, loss["mean"] + sd]
            axes.update_datalim([(x, end) for end in ends])
            axes.plot([x, x], ends, color=colour, lw=1.4, transform=side)
            axes.plot(x, loss["mean"], marker, color=colour, ms=7, label=arm, transform=side)
        axes.set_xlabel(label)
        axes.autoscale_view()
        axes.margins(x=0.18, y=0.08)
    panels[0].set_ylabel("validation loss (nats per token)")
    _legend(figure, panels[0])
    return figure
