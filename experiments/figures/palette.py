"""Colours, markers and type of the figures: after Okabe and Ito (2008), for colour-blind readers.

Every series colour has a contrast of at least 3 : 1 (WCAG 2.2) to the page in its light and in its
dark theme, so the same one serves in both, in notebooks and in bitmaps.
"""

from pathlib import Path
from typing import NamedTuple, Protocol

INK, MUTED, RULE, PAPER = "#1b1b1c", "#6c6c6d", "#d8d8d9", "#fefefd"
THEME = {INK: "currentColor", MUTED: "var(--muted)", RULE: "var(--rule)", PAPER: "none"}
SERIES = (
    "#0072b2",  # blue
    "#3096d0",  # sky
    "#d55e00",  # vermilion
    "#b8860b",  # amber
    "#868b93",  # grey
    "#009e73",  # green
    "#c76ba0",  # pink
    "#8c6d31",  # brown
    "#9a78b8",  # violet
    "#5b8c2a",  # olive
    "#b5446e",  # crimson
    "#3f7f9f",  # slate
)
MARKERS = "^vDPsXp*h<>d"
SETTINGS = {
    "svg.hashsalt": "report",
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name with dollar signs is a name
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.facecolor": PAPER,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "axes.unicode_minus": True,
}


class Arms(Protocol):
    """A study or a comparison: which arm is the baseline, and the order of the others."""

    @property
    def baseline(self) -> str: ...

    @property
    def colour_order(self) -> tuple[str, ...]: ...


class Style(NamedTuple):
    """How an arm is drawn, the same in every figure and on the page."""

    colour: str
    marker: str


def style(arms: Arms, arm: str) -> Style:
    """Ink for the baseline; the others run through the colours and begin again."""
    if arm == arms.baseline:
        return Style(INK, "o")
    place = arms.colour_order.index(arm)
    return Style(SERIES[place % len(SERIES)], MARKERS[place % len(MARKERS)])


def theme() -> str:
    """The colours and type of pages, light and dark, as custom properties of CSS."""
    return (Path(__file__).parent / "theme.css").read_text("utf-8")


def series() -> str:
    """SERIES as custom properties of CSS, --series-0 and so on."""
    colours = "".join(f" --series-{i}: {colour};" for i, colour in enumerate(SERIES))
    return f":root {{{colours} }}\n"
