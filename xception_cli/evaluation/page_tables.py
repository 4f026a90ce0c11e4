"""The report's tables: classes, scores, what the data is made of, what repeats the run."""

from collections.abc import Mapping, Sequence
from typing import Any

from xception_cli.data.split import Split
from xception_cli.evaluation.report import SCORES
from xception_cli.html import columns, scrolling, text


def percent(part: float | None) -> str:
    """Write a part of 1; what could not be measured is n/a."""
    return "n/a" if part is None else f"{100 * part:.1f}%"


def interval(ends: Sequence[float | None] | None, *, in_percent: bool = True) -> str:
    """Write the ends of an interval."""
    low, high = ends or (None, None)
    if low is None or high is None:
        return "n/a"
    return f"{100 * low:.1f}-{100 * high:.1f}%" if in_percent else f"{low:.3f}-{high:.3f}"


def class_table(report: Mapping[str, Any]) -> str:
    """Draw how each class fared.

    Args:
        report: As in metrics.json.
    """
    rows = []
    for row in report["per_class"]:
        cells = (
            row["n"],
            percent(row["recall"]),
            interval((row["recall_low"], row["recall_high"])),
            percent(row["precision"]),
            interval((row["precision_low"], row["precision_high"])),
            _plain(row["f1"]),
            _plain(row["average_precision"]),
        )
        rows.append(_row(row["name"], cells))
    titles = ("class", "n", "recall", "95% CI", "precision", "95% CI", "F1")
    return _scrolling("Class by class", columns(*titles, "average precision"), rows)


def scores_table(report: Mapping[str, Any]) -> str:
    """Draw what was measured over all classes, each number with its interval."""
    rows = []
    for name, title in SCORES.items():
        value, in_percent = report[name], name in {"top_k_accuracy", "macro_recall"}
        if value is not None:
            ends = report["intervals"].get(name)
            shown = percent(value) if in_percent else _plain(value)
            cells = (shown, interval(ends, in_percent=in_percent))
            rows.append(_row(title.format(k=report["top_k"]), cells))
    titles = ("over all classes", "value", "95% CI")
    return _scrolling("Over all classes", columns(*titles), rows)


def _plain(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _row(name: str, cells: Sequence[object]) -> str:
    return f"<tr><th scope=row>{text(name)}</th>{''.join(f'<td>{c}</td>' for c in cells)}</tr>\n"


def _scrolling(name: str, head: str, rows: Sequence[str], kind: str = "figures") -> str:
    return scrolling(name, f"<table class={kind}>{head}{''.join(rows)}</table>")


def make_up_table(split: Split) -> str:
    """Draw how many images of each class are in each split."""
    counts = {name: split.counts(name) for name in ("train", "val", "test")}
    counts = {name: column for name, column in counts.items() if any(column)}
    most = max(max(column) for column in counts.values())
    rows = [
        _row(
            name,
            [
                f'<span class=bar style="width:calc((100% - 3.5rem) * {column[label] / most:.3f})">'
                f"</span> {column[label]}"
                for column in counts.values()
            ],
        )
        for label, name in enumerate(split.classes)
    ]
    return f"<table class=bars>{columns('class', *counts)}{''.join(rows)}</table>\n"


def settings_tables(
    info: Mapping[str, Any], config: Mapping[str, Any], result: Mapping[str, Any], digest: str
) -> str:
    """Draw what a run depends on: command, versions, hashes, and every setting.

    Args:
        info: run.json.
        config: config.toml.
        result: result.json.
        digest: Of the model file.
    """
    times = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in result["seconds"].items())
    facts = {
        "command": info["command"],
        "started": info["started"],
        "time": times,
        "device": f"{info['device']}, {info['precision']}, {info['threads']} threads",
        "weights": info["weights"]["source"],
        "weights, SHA-256": info["weights"]["digest"],
        "data, SHA-256": info["data_fingerprint"],
        "model, SHA-256": digest,
        "git commit": info["git_commit"],
        **{f"{name} (version)": value for name, value in info["versions"].items()},
    }
    # The data folder is an absolute path, which is nobody else's business.
    settings = {name: value for name, value in config.items() if name != "data"}
    tables = (
        _scrolling(
            title,
            "",
            [_row(n, [f"<code>{text(v)}</code>"]) for n, v in rows.items() if v is not None],
            "facts",
        )
        for title, rows in (("The run", facts), ("Settings", settings))
    )
    return f"<div class=columns>{''.join(tables)}</div>"
