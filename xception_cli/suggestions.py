"""Suggestions: corrections of mistyped words, and the check of a choice."""

import difflib
from collections.abc import Iterable, Mapping

from xception_cli.console import enumerated, show
from xception_cli.errors import UsageError

_MOST = 40  # names listed in an error

# Values of other tools, and ours.
_VALUES = {
    "gpu": "cuda",
    "gpus": "cuda",
    "cuda:0": "cuda",
    "0": "cuda",
    "metal": "mps",
    "float32": "fp32",
    "32": "fp32",
    "float16": "fp16",
    "half": "fp16",
    "16": "fp16",
    "bfloat16": "bf16",
    "adam": "adamw",
    "validation": "val",
    "valid": "val",
    "flip": "mirror",
    "true": "auto",
    "f1": "macro_recall",
    "acc": "accuracy",
    "fast": "quick",
    "full": "all",
}


def nearest(word: str, known: Iterable[str], also: Mapping[str, str] | None = None) -> str | None:
    """Return the known word closest to a mistyped one; None if none is close.

    Args:
        word: What was typed.
        known: The valid words.
        also: Synonyms of some of these, such as those of another tool.
    """
    words = {name: name for name in known}
    meant = {other: name for other, name in (also or {}).items() if name in words}
    typed = word.lower().replace("_", "-")
    found = {**{n.lower().replace("_", "-"): name for n, name in meant.items()}}
    found |= {n.lower().replace("_", "-"): name for n, name in words.items()}
    near = difflib.get_close_matches(typed, found, n=1)
    return found[near[0]] if near else None


def did_you_mean(
    word: str,
    known: Iterable[str],
    otherwise: str | None = None,
    also: Mapping[str, str] | None = None,
) -> str | None:
    """Return the hint for a mistyped word.

    Args:
        word: What was typed.
        known: The valid words.
        otherwise: The hint if none of them is close.
        also: See `nearest`.
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
        hint=did_you_mean(str(value), listed, also=_VALUES),
    )
