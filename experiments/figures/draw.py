"""Draws every figure that the data allow, as PNG, as SVG, and as SVG for the page."""

import importlib
import re
import warnings
from pathlib import Path
from typing import NamedTuple

from experiments import figures
from experiments.figures.contract import Figure
from experiments.figures.palette import SETTINGS, THEME
from experiments.results.record import Comparison
from experiments.text import printable


class Drawing(NamedTuple):
    """A finished figure; `svg` is for a page that defines --muted and --rule."""

    name: str
    title: str
    caption: str
    alt: str
    svg: str
    inches: float  # wide


def draw(comparison: Comparison, folder: Path) -> list[Drawing]:
    """Writes every figure that the data allow as PNG and SVG to the folder and returns them."""
    import matplotlib

    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(matplotlib.rcParamsDefault), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the page has other fonts
        matplotlib.rcParams.update(SETTINGS)
        drawn = [_draw(target, comparison, folder) for target in figures.FIGURES]
    return [drawing for drawing in drawn if drawing]


def _draw(target: str, comparison: Comparison, folder: Path) -> Drawing | None:
    """One figure; its files have the name of its module."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    module, kind = target.split(":")
    name = module.rpartition(".")[2]
    figure: Figure = getattr(importlib.import_module(module), kind)()
    sheet = figure.draw(comparison)
    path, bitmap = folder / f"{name}.svg", folder / f"{name}.png"
    if sheet is None:  # one of an earlier report would no longer fit
        path.unlink(missing_ok=True)
        bitmap.unlink(missing_ok=True)
        return None
    FigureCanvasAgg(sheet)
    _print(sheet)
    _settle(sheet)
    sheet.savefig(bitmap, dpi=150, metadata={"Software": None})
    sheet.savefig(path, metadata={"Date": None, "Creator": None})
    alt = figure.alt(comparison)
    svg = _themed(path.read_text(encoding="utf-8"), name, alt)
    caption, inches = figure.caption(comparison), sheet.get_figwidth()
    return Drawing(name, figure.title, caption, alt, svg, inches)


def _print(figure) -> None:
    """Names with control characters, which no SVG may hold, are drawn as their escapes."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_text(printable(text.get_text()))


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
