"""Suggestions: what a mistyped word may mean, and which values a choice has."""

import difflib
from collections.abc import Iterable, Mapping

from xception_cli.console import enumerated, show
from xception_cli.errors import UsageError

_MOST = 40  # names in an error; more do not help

# Values that other tools take, and ours.
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
    """Return the known word that is most like a mistyped one; None if none is near.

    Args:
        word: What was typed.
        known: What could be meant.
        also: Other words for some of these, such as those of another tool.
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
        known: What could be meant.
        otherwise: The hint if nothing is near.
        also: See `nearest`.
    """
    near = nearest(word, known, also)
    return otherwise if near is None else f"did you mean {show(near)}?"


def expect_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """See that a value is one of some choices.

    Args:
        name: Of the setting or option.
        value: What was given.
        choices: What it can be, the most usual first; `gpu`, which means cuda, is never suggested.

    Raises:
        UsageError: It is none; lists the choices, and which may be meant.
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
