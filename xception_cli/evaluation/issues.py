"""What the report shows of the data check: suspect labels, and images that are there twice."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from xception_cli.data.fixes import CONFLICTING, DUPLICATE, LEAK, NEAR, SUSPECTS
from xception_cli.html import figure, photo, text

_LABELS, _PAIRS = 12, 8  # cards of a kind

Row = Mapping[str, str]


def draw_issues(rows: Sequence[Row], root: Path) -> str:
    """Draw what the data check of a run found, the worst first, and count the rest.

    Args:
        rows: Of the run's issues.csv.
        root: The data folder; a photo that is gone leaves a gap.

    Returns:
        HTML; empty if there is nothing.
    """
    pairs = {
        "The same picture in two classes": _pairs(rows, root, CONFLICTING),
        "The same picture in two splits": _pairs(rows, root, LEAK),
        "The same picture twice in a class": _pairs(rows, root, DUPLICATE, NEAR),
    }
    parts = [_group("Suspect labels", "cards", *_singles(rows, root))]
    parts += [_group(title, "cards wide", *found) for title, found in pairs.items()]
    return "".join(parts)


def _singles(rows: Iterable[Row], root: Path) -> tuple[list[str], int]:
    found = [row for row in rows if row.get("problem") in SUSPECTS]  # the most suspect first
    shown = found[:_LABELS]
    return [_card(row, photo(root / row["path"], row["path"])) for row in shown], len(found)


def _pairs(rows: Iterable[Row], root: Path, *problems: str) -> tuple[list[str], int]:
    """Draw pairs of files; a pair that is told from both sides is one."""
    found: dict[frozenset[str], tuple[Row, str]] = {}
    for row in rows:
        if row.get("problem") in problems:
            # In the words of `xception check`: identical, or nearly identical, to another file.
            other = row.get("detail", "").partition("identical to ")[2]
            found.setdefault(frozenset((row["path"], other)), (row, other))
    cards = [
        _card(row, "".join(photo(root / path, path) for path in (row["path"], other)))
        for row, other in list(found.values())[:_PAIRS]
    ]
    return cards, len(found)


def _card(row: Row, pictures: str) -> str:
    return figure(pictures, f"<b>{text(row.get('detail', ''))}</b><br>{text(row['path'])}")


def _group(title: str, kind: str, cards: Sequence[str], count: int) -> str:
    if not count:
        return ""
    more = f"<p class=more>and {count - len(cards):,} more, in issues.csv</p>\n"
    return (
        f'<h3>{title}: {count:,}</h3>\n<div class="{kind}">{"".join(cards)}</div>\n'
        f"{more if count > len(cards) else ''}"
    )
