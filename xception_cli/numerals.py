"""Numerals: numbers as they are printed, with separators and nouns, and as they are typed."""

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
