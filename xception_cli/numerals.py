"""Numerals: numbers as they are printed, with separators and units, and as they are typed."""

import re


def count_of(number: int, thing: str) -> str:
    """Write a count with its noun: `1 image`, `1,200 images`, `2 classes`, `3 copies`.

    Args:
        number: The count.
        thing: One of it; of several words, the last one becomes plural.
    """
    if number != 1:
        thing = (
            f"{thing[:-1]}ies" if thing.endswith("y") else f"{thing}{'e' * thing.endswith('s')}s"
        )
    return f"{number:,} {thing}"


def percentage(share: float) -> str:
    """Format a share: `92.1%`. Only everything is `100.0%`, and only nothing is `0.0%`."""
    rounded = min(max(share, 0.001), 0.999) if 0 < share < 1 else share
    return f"{rounded:.1%}"


def duration(seconds: float) -> str:
    """Format a duration: `45 s`, `3 min 10 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def about(seconds: float) -> str:
    """Format an expected duration, as exactly as it can be known: `7 s`, `40 s`, `3 min`."""
    if seconds < 55:
        return duration(seconds if seconds < 10 else round(seconds, -1))
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 60 else duration(600 * round(seconds / 600))


def span(low: float | None, high: float | None) -> str:
    """Format the range of a number; empty without bounds."""
    if low is None:
        return ""
    return f"at least {low:,.10g}" if high is None else f"{low:,.10g} to {high:,.10g}"


def without_separators(text: str) -> str:
    """Return a whole number as Python reads it: `89,478,485`, as printed, becomes `89478485`.

    Any other text is returned unchanged, such as `0,001`, where the comma is a decimal point.
    """
    grouped = re.fullmatch(r"\s*[+-]?[1-9]\d{0,2}(,\d{3})+\s*", text)
    return text.replace(",", "") if grouped else text
