"""What a terminal showed, as one animated SVG. Pure: frames in, text out.

All frames hang below each other on a strip that CSS moves behind a window, so the file needs no script and plays where a page
shows it as an image. Rows that occur more than once, which most do, are drawn once and used by name. Every run of characters has
its place and its length, so columns stay straight in whatever monospace font the reader has; none is fetched.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

import attrs

#: Pixels.
CELL_WIDTH: Final = 8
ROW_HEIGHT: Final = 17
#: From the top of a row to the line that letters stand on.
BASELINE: Final = 13
PADDING: Final = 14
BAR: Final = 30

#: pyte's names; 256-colour cells come as six hexadecimal digits. Each is readable (4.5:1 and more) on the background.
COLOURS: Final = {
    "default": "#d5dae1",
    "black": "#8b949e",
    "red": "#ff7b72",
    "green": "#5fd06f",
    "brown": "#e5b94b",
    "blue": "#79b8ff",
    "magenta": "#d6a4ff",
    "cyan": "#4fd0d8",
    "white": "#d5dae1",
    "brightblack": "#8b949e",
    "brightred": "#ff9a92",
    "brightgreen": "#7ee58c",
    "brightbrown": "#f4d06f",
    "brightblue": "#a5d0ff",
    "brightmagenta": "#e2bfff",
    "brightcyan": "#7fe3ea",
    "brightwhite": "#ffffff",
}
FONTS: Final = 'ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono","Liberation Mono",monospace'
BACKGROUND: Final = "#10151c"


@attrs.frozen
class Span:
    """Cells of one row that look alike. ``colour`` is one of pyte's names."""

    column: int
    text: str
    colour: str = "default"
    bold: bool = False
    italic: bool = False


Row = tuple[Span, ...]


@attrs.frozen
class Frame:
    """What was on the screen from ``at`` (seconds since the beginning) on."""

    at: float
    rows: tuple[Row, ...]


def svg(frames: Sequence[Frame], *, columns: int, rows: int, title: str, hold: float, still: int) -> str:
    """The film, with the last frame shown for ``hold`` seconds. Readers who want no motion see the frame number ``still``."""
    width = round(columns * CELL_WIDTH + 2 * PADDING)
    height = rows * ROW_HEIGHT
    total = frames[-1].at + hold
    names: dict[Row, str] = {}
    strip: list[str] = []
    for number, frame in enumerate(frames):
        uses = [
            f'<use href="#{names.setdefault(row, f"r{len(names)}")}" y="{line * ROW_HEIGHT + BASELINE}"/>'
            for line, row in enumerate(frame.rows)
            if row
        ]
        strip.append(f'<g transform="translate(0 {number * height})">{"".join(uses)}</g>')
    moves = [
        f"{frame.at / total:.3%}{{transform:translateY({-number * height}px)}}" for number, frame in enumerate(frames)
    ]
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height + BAR + PADDING}" width="{width}" role="img">
<title>{escape(title)}</title>
<style>
text{{fill:{COLOURS["default"]};font:13.3px {FONTS};white-space:pre}}
{_classes(names)}
.film{{transform:translateY({-still * height}px);animation:film {total:.2f}s steps(1,end) infinite}}
@media (prefers-reduced-motion:reduce){{.film{{animation:none}}}}
@keyframes film{{{"".join(moves)}}}
</style>
<defs>
{chr(10).join(f'<g id="{name}">{"".join(_span(span) for span in row)}</g>' for row, name in names.items())}
</defs>
<rect width="100%" height="100%" rx="10" fill="{BACKGROUND}"/>
<g fill="#39414d"><circle cx="20" cy="17" r="5.5"/><circle cx="39" cy="17" r="5.5"/><circle cx="58" cy="17" r="5.5"/></g>
<svg x="{PADDING}" y="{BAR}" width="{width - PADDING}" height="{height}" overflow="hidden">
<g class="film">
{chr(10).join(strip)}
</g>
</svg>
</svg>
"""


def _colour(name: str) -> str:
    return COLOURS.get(name, f"#{name}")


def _classes(rows: Iterable[Row]) -> str:
    used = sorted({span.colour for row in rows for span in row} - {"default"})
    return (
        "".join(f".{_class(name)}{{fill:{_colour(name)}}}" for name in used)
        + ".b{font-weight:700}.i{font-style:italic}"
    )


def _class(colour: str) -> str:
    # A class must not begin with a digit.
    return colour if colour in COLOURS else f"x{colour}"


def _span(span: Span) -> str:
    styles = [_class(span.colour)] * (span.colour != "default") + ["b"] * span.bold + ["i"] * span.italic
    style = f' class="{" ".join(styles)}"' if styles else ""
    place = f'x="{span.column * CELL_WIDTH}" textLength="{len(span.text) * CELL_WIDTH}"'
    return f"<text{style} {place}>{escape(span.text, quote=False)}</text>"
