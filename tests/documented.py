"""docs/json.md as data: the keys and types that a command's --json must have."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent.parent / "docs" / "json.md"
TYPES = {
    "string": str, "integer": int, "number": (int, float), "boolean": bool, "list": list,
    "object": dict, "null": type(None),
}  # fmt: skip


def check_documented(command: str, data: dict[str, Any]) -> None:
    """See that a command printed every key that the page promises, of its type, and no other."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {command}\n")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `(.+?)` \| (.+?) \|", section, re.MULTILINE))
    patterns = {re.compile(re.sub(r"[A-Z]+", "[^.]+", re.escape(key))): rows[key] for key in rows}
    found = dict(_leaves(data))
    for key, values in found.items():
        promised = next((kind for p, kind in patterns.items() if p.fullmatch(key)), None)
        assert promised is not None, f"{command}: {key} is not in {PAGE.name}"
        kinds = tuple(TYPES[name] for name in promised.split(",")[0].split(" or "))
        for value in values:
            assert isinstance(value, kinds), f"{command}: {key} is {value!r}, not {promised}"
            assert bool in kinds or not isinstance(value, bool), key
    top = {key.split(".")[0].removesuffix("[]") for key in rows if ", only" not in rows[key]}
    optional = {key.split(".")[0] for key in rows if ", only" in rows[key]}
    assert top - optional <= data.keys() | optional, f"{command} lacks {top - data.keys()}"
    assert found  # the control


def _leaves(data: Any, key: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Yield each key with the values that it has; a mapping by free names has no key of its own."""
    by_key: dict[str, list[Any]] = {}
    for name, value in data.items():
        by_key.setdefault(f"{key}{name}", []).append(value)
        parts = value if isinstance(value, list) else [value]
        inside = f"{key}{name}[]." if isinstance(value, list) else f"{key}{name}."
        for part in parts:
            if isinstance(part, dict):
                for inner, values in _leaves(part, inside):
                    by_key.setdefault(inner, []).extend(values)
    yield from by_key.items()
