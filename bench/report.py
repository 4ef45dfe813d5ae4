"""What a workload hands back, and how it becomes a page: tables in Markdown, bars in SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import attrs


@attrs.frozen(kw_only=True)
class Goal:
    """A goal of the project beside what was reached; ``met`` None: it can't be told here, and ``reached`` says why."""

    what: str
    reached: str
    met: bool | None


@attrs.frozen(kw_only=True)
class Result:
    """One workload. ``bars``: what is plotted, name and value in ``unit``; ``ratios`` are printed as they are."""

    title: str
    #: What was measured and against what: the workload's docstring.
    story: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    unit: str
    bars: Sequence[tuple[str, float]]
    ratios: Sequence[str]
    goals: Sequence[Goal] = ()
    absent: Sequence[str] = ()
    #: What got dearer than it may: makes `make bench` fail.
    dearer: Sequence[str] = ()

    def markdown(self, name: str) -> str:
        """A section of the page, with the plot of this name."""
        lines = [
            f"## {self.title}",
            "",
            self.story.strip(),
            "",
            f"![{self.title}, {self.unit}](benchmarks/{name}.svg)",
            "",
        ]
        lines += table(self.columns, self.rows)
        lines += ["", *(f"- {ratio}" for ratio in self.ratios)]
        if self.absent:
            lines.append(f"- Absent, because not installed: {', '.join(self.absent)}.")
        return "\n".join(lines) + "\n"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; all columns but the first are numbers."""
    return [
        "| " + " | ".join(columns) + " |",
        "| --- |" + " ---: |" * (len(columns) - 1),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def number(value: float) -> str:
    """Three digits that matter."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 0.001 else f"{value:.1g}"


def svg(title: str, unit: str, bars: Sequence[tuple[str, float]]) -> str:
    """Horizontal bars from zero; the first, ours, in another colour. Readable on light and dark pages."""
    most = max((value for _, value in bars), default=1.0)
    height = 44 + 30 * len(bars)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {height}" width="760" height="{height}" role="img" '
        f'aria-label="{escape(title)}" font-family="system-ui, sans-serif" font-size="13">',
        f'<rect width="760" height="{height}" rx="6" fill="#ffffff"/>',
        f'<text x="16" y="24" font-weight="600" fill="#1f2328">{escape(f"{title} ({unit})")}</text>',
    ]
    for index, (name, value) in enumerate(bars):
        y = 38 + 30 * index
        width = max(2.0, 330 * value / most)
        colour = "#0969da" if name.startswith("agentstream") else "#8c959f"
        parts += [
            f'<text x="300" y="{y + 15}" text-anchor="end" fill="#1f2328">{escape(name)}</text>',
            f'<rect x="310" y="{y}" width="{width:.1f}" height="20" rx="3" fill="{colour}"/>',
            f'<text x="{318 + width:.1f}" y="{y + 15}" fill="#1f2328">{escape(number(value))}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def write(docs: Path, facts: Sequence[tuple[str, str]], results: Mapping[str, Result]) -> None:
    """docs/benchmarks.md and its plots, one for each workload by its name."""
    (docs / "benchmarks").mkdir(parents=True, exist_ok=True)
    for name, result in results.items():
        (docs / "benchmarks" / f"{name}.svg").write_text(svg(result.title, result.unit, result.bars))
    goals = [goal for result in results.values() for goal in result.goals]
    verdict = {True: "yes", False: "**no**", None: "can't be told"}
    parts = [
        "# Benchmarks",
        "",
        "Written by `make bench`; don't edit. Ours and the peers ran in turn in the same session on the machine below. Absolute",
        "numbers belong to that machine and its load at that moment; look at the ratios. CPU is what the server process took,",
        "user and system, of all its threads: it suffers less from neighbours than wall-clock time does. Where the time goes",
        "inside, and what was tried and rejected: [performance](performance.md).",
        "",
        *table(("machine", "at this run"), facts),
        "",
        "## Goals, and what was reached",
        "",
        *table(("goal", "reached", "met"), [(goal.what, goal.reached, verdict[goal.met]) for goal in goals]),
        "",
        *(result.markdown(name) for name, result in results.items()),
    ]
    (docs / "benchmarks.md").write_text("\n".join(parts).rstrip() + "\n")
