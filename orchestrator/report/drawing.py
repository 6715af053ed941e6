"""The pen: colours, axes and the two ways onto paper. Knows nothing of campaigns; `figures` says what is drawn.

Figures are made with matplotlib's objects alone, never through pyplot, whose figures are global. Every colour has a
role, and a shade for light and for dark paper; in SVG the shade is a CSS variable, so that the page chooses.
"""

import io
import re
from typing import Any, Final

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's hues, distinguishable without red-green vision, shaded until text in them reaches 4.5 : 1.
INK: Final = "#1c2128"
MUTED: Final = "#57606a"
GRID: Final = "#d8dde3"
BLUE: Final = "#0067a8"
VERMILION: Final = "#b9480e"
GREEN: Final = "#0b7a5b"
GOLD: Final = "#86610a"
PURPLE: Final = "#8f3f97"
PAPER: Final = "#ffffff"

SHADES: Final = {
    "ink": (INK, "#e6e9ee"),
    "muted": (MUTED, "#a3adba"),
    "grid": (GRID, "#343b45"),
    "blue": (BLUE, "#5cb6f2"),
    "vermilion": (VERMILION, "#ff9c66"),
    "green": (GREEN, "#48c99c"),
    "gold": (GOLD, "#e3b341"),
    "purple": (PURPLE, "#dd9be4"),
    "paper": (PAPER, "#14181d"),
}
"""By role: the colour on light paper, and on dark."""

WIDE_IN: Final = 9.2
"""Fills a page's column; text comes out at 13 pixels."""
NARROW_IN: Final = 4.0
"""Fills a phone."""
TEXT_PT: Final = 9.5
SMALL_PT: Final = 8.5
TITLE_LIFT_PT: Final = 6.0

_ROLE_OF: Final = {light: role for role, (light, _) in SHADES.items()}
_COLOUR: Final = re.compile("|".join(_ROLE_OF), re.IGNORECASE)
_FONT: Final = re.compile(r"font: ((?:\w+ )*[\d.]+px) [^;\"]*")
_OPENING: Final = re.compile(r"<svg\b[^>]*?viewBox=\"([^\"]*)\"[^>]*>")
_DROPPED: Final = re.compile(r"<metadata>.*?</metadata>|<style\b.*?</style>", re.DOTALL)


def is_narrow(width_in: float) -> bool:
    return width_in < (WIDE_IN + NARROW_IN) / 2


def sheet(width_in: float, height_in: float) -> Figure:
    """An empty figure whose axes make room for their own text."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained", facecolor="none")
    figure.get_layout_engine().set(w_pad=0.04, h_pad=0.06, wspace=0.04, hspace=0.03)  # type: ignore[union-attr, call-arg]
    return figure


def dress(
    axes: Axes,
    *,
    title: str | None = None,
    colour: str = INK,
    x: str | None = None,
    y: str | None = None,
    title_lift_pt: float = TITLE_LIFT_PT,
) -> None:
    """Give axes the common look; the title names what is drawn, in the colour that it is drawn in."""
    axes.set_facecolor("none")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelcolor=INK, labelsize=SMALL_PT, length=3)
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    if title is not None:
        axes.set_title(title, loc="left", color=colour, fontsize=TEXT_PT, fontweight="bold", pad=title_lift_pt)
    if x is not None:
        axes.set_xlabel(x, color=INK, fontsize=TEXT_PT)
    if y is not None:
        axes.set_ylabel(y, color=INK, fontsize=TEXT_PT)


def write(axes: Axes, x: float, y: float, text: str, **how: Any) -> None:
    """Put text on axes; never read as a formula, whatever it holds."""
    axes.annotate(text, (x, y), **{"fontsize": SMALL_PT, "parse_math": False, "annotation_clip": False, **how})


def to_svg(figure: Figure, *, name: str, alt: str) -> str:
    """One `<svg>` element for a page: text stays text, colours follow the page, nothing is loaded.

    Args:
        name: keeps the ids of one page's figures apart; equal figures of one name are equal to the byte.
        alt: what the picture says, for those who do not see it; attribute-safe escaping is done here.
    """
    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(out, format="svg", metadata={"Date": None}, transparent=True)
    drawn = out.getvalue()
    drawn = _DROPPED.sub("", drawn[drawn.index("<svg") :])
    drawn = _FONT.sub(r"font: \1 var(--sans, sans-serif)", drawn)
    drawn = _COLOUR.sub(lambda found: f"var(--{_ROLE_OF[found[0].lower()]}, {found[0].lower()})", drawn)
    opening = f'<svg viewBox="\\1" role="img" aria-label="{_attribute(alt)}" stroke-linejoin="round">'
    return _OPENING.sub(opening.replace("\\1", r"\g<1>"), drawn, count=1).strip()


def to_png(figure: Figure) -> bytes:
    """For places that take no SVG: on light paper, 160 dots an inch."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=160, facecolor=PAPER, metadata={"Software": None})
    return out.getvalue()


def _attribute(text: str) -> str:
    for character, entity in (("&", "&amp;"), ('"', "&quot;"), ("<", "&lt;"), (">", "&gt;"), ("\\", "&#92;")):
        text = text.replace(character, entity)
    return text
