"""Text of strangers, made fit for a terminal; numbers, made fit for people. Pure.

An agent prints what a web page or a file told it. On a terminal, escape sequences in there could move the cursor over what was
said before, change the title, or write to the clipboard; bidirectional controls could make a command read as another one. So every
control character is shown as a picture of itself, and none is ever sent.
"""

from __future__ import annotations

from typing import Final

#: Unicode has a picture for each C0 control (U+2400...) and for DEL; C1 and bidirectional controls are shown by number.
_PICTURES: Final[dict[int, str]] = {
    **{code: chr(0x2400 + code) for code in range(0x20) if code not in (0x09, 0x0A)},
    0x7F: "\u2421",
    **{code: f"<{code:02X}>" for code in range(0x80, 0xA0)},
    **{code: f"<{code:04X}>" for code in (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))},
    0x2028: "\n",
    0x2029: "\n",
    0xFEFF: "",
}
_JSON_ESCAPES: Final[dict[int, str]] = {code: f"\\u{code:04x}" for code in _PICTURES if code >= 0x7F}


def safe(text: str) -> str:
    """``text`` without anything that a terminal would obey. Newlines and tabs stay."""
    # Everything in the table is unprintable, and most text isn't.
    return text if text.isprintable() else text.replace("\r\n", "\n").translate(_PICTURES)


def safe_json(text: str) -> str:
    """JSON text with the same meaning, for a terminal. JSON itself escapes C0 controls; the rest is escaped here."""
    return text.translate(_JSON_ESCAPES)


def one_line(text: str, limit: int = 160) -> str:
    """``text`` on one line, safe, and at most ``limit`` characters with the ellipsis."""
    # Only a bounded part is looked at: some strings have megabytes.
    line = " ".join(safe(text[: limit * 4]).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def duration(seconds: float, *, ticking: bool = False) -> str:
    """``0.8 s``, ``1:05``, ``2:03:04``; whole seconds where it is ``ticking``, since tenths would only flicker."""
    if seconds < 10 and not ticking:
        return f"{max(seconds, 0.0):.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{rest:02}"
    return f"{minutes}:{rest:02}" if minutes else f"{rest} s"


def count(number: int) -> str:
    """``950``, ``12.3k``, ``4.0M``."""
    if number < 1000:
        return str(number)
    if number < 1_000_000:
        return f"{number / 1000:.1f}k"
    return f"{number / 1_000_000:.1f}M"


def many(number: int, thing: str) -> str:
    """``1 turn``, ``3 turns``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def size(number: int) -> str:
    """``512 B``, ``1.5 KiB``, ``3.0 MiB``."""
    if number < 1024:
        return f"{number} B"
    if number < 1024 * 1024:
        return f"{number / 1024:.1f} KiB"
    return f"{number / (1024 * 1024):.1f} MiB"


def money(dollars: float) -> str:
    """``$0.0123`` below a dime, ``$1.23`` above."""
    return f"${dollars:.4f}" if dollars < 0.1 else f"${dollars:.2f}"
