"""Suggestions: corrections of mistyped words, and the check of a choice."""

import math
from collections.abc import Iterable, Mapping, Sequence

from xception_cli.console import enumerated, show
from xception_cli.errors import UsageError
from xception_cli.synonyms import VALUES

_MOST = 40  # names listed in an error

Synonyms = Mapping[str, Sequence[str]]
# Ends of a name that say that its value is a path
_PATHS = ("dir", "directory", "file", "folder", "path")


def same(word: str, known: Iterable[str], also: Synonyms | None = None) -> str | None:
    """Return the known word that a word means, written in another way or by another tool.

    Args:
        word: What was typed.
        known: The valid words.
        also: Other words, and those that each may mean.

    Returns:
        None if it is none of these: it may be mistyped.
    """
    words = {_letters(name): name for name in known}
    others = {_letters(name): meant for name, meant in (also or {}).items()}
    typed = _letters(word)
    plain = next((typed.removesuffix(end) for end in _PATHS if typed.endswith(end)), typed)
    for letters in (typed,) if typed in others or len(plain) == 1 else (typed, plain):
        for name in (letters, *map(_letters, others.get(letters, ()))):
            if name in words:
                return words[name]
    return None


def nearest(word: str, known: Iterable[str], also: Synonyms | None = None) -> str | None:
    """Return the known word closest to a mistyped one; None if none is close.

    Args:
        word: What was typed.
        known: The valid words.
        also: See `same`.
    """
    words, typed = list(known), _letters(word)
    if meant := same(word, words, also):
        return meant
    if also and typed in map(_letters, also):
        return None  # a name of another thing
    typos = {name: _typos(typed, _letters(name)) for name in words}
    if typos and (close := min(typos, key=lambda name: typos[name])) and typos[close] < math.inf:
        return close
    others = [name for name in also or () if _typos(typed, _letters(name)) == 1]
    others = [
        name
        for name in others
        if len(name) > 4 or sorted(name) == sorted(typed) or typed.startswith(name)
    ]
    return next(filter(None, (same(name, words, also) for name in others)), None)


def _letters(word: str) -> str:
    """Return what identifies a word, however it is written: `--Batch_Size` is `batchsize`."""
    return word.lower().replace("-", "").replace("_", "")


def _typos(typed: str, name: str) -> float:
    """Count the letters that are missing, added, replaced or swapped with the next one.

    Letters in another order count once. The count is infinite if it is over 1, or over 2 in a word
    of 7 letters; if the first letter is wrong, as in `xpu` and `cpu`; or if the digits are others,
    as in `int4` and `int8`.
    """
    longest, shortest = sorted((len(typed), len(name)), reverse=True)
    digits = [sorted(filter(str.isdigit, word)) for word in (typed, name)]
    if longest < 3 or longest - shortest > 2 or typed[:1] not in list(name[:2]):
        return math.inf
    if all(digits) and digits[0] != digits[1]:
        return math.inf
    if sorted(typed) == sorted(name):
        return 1
    before: list[int] = []
    above = list(range(len(name) + 1))
    for i, letter in enumerate(typed, start=1):
        row = [i]
        for j, other in enumerate(name, start=1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (letter != other)))
            if i > 1 and j > 1 and typed[i - 2 : i] == other + name[j - 2]:
                row[j] = min(row[j], before[j - 2] + 1)
        before, above = above, row
    return above[-1] if above[-1] <= 1 + (longest > 6) else math.inf


def did_you_mean(
    word: str,
    known: Iterable[str],
    otherwise: str | None = None,
    also: Synonyms | None = None,
) -> str | None:
    """Return the hint for a mistyped word.

    Args:
        word: What was typed.
        known: The valid words.
        otherwise: The hint if none of them is close.
        also: See `same`.
    """
    near = nearest(word, known, also)
    return otherwise if near is None else f"did you mean {show(near)}?"


def expect_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Check that a value is one of some choices.

    Args:
        name: Name of the setting or option.
        value: The given value.
        choices: The valid values, the usual one first; `gpu`, which means cuda, is never suggested.

    Raises:
        UsageError: It is not; the message lists the choices, and the hint suggests one.
    """
    known = list(choices)
    if value in known:
        return
    shown = (
        show(repr(value)) if isinstance(value, (str, int, float)) else f"a {type(value).__name__}"
    )
    listed = [choice for choice in known if choice != "gpu"]
    expected = " or ".join(listed) if len(listed) == 2 else f"one of {enumerated(listed, _MOST)}"
    raise UsageError(
        f"{name} is {shown}, expected {expected}",
        hint=did_you_mean(str(value), listed, also=VALUES),
    )
