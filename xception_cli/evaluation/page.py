"""report.html: a run on one page, without a script, that loads nothing and opens from disk."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from xception_cli.config import read_toml
from xception_cli.console import quoted, show
from xception_cli.data.split import Split, read_split
from xception_cli.evaluation.calibration_plot import draw_calibration
from xception_cli.evaluation.charts import confusion_order, draw_curves, draw_matrix, read_rows
from xception_cli.evaluation.gallery import draw_cards, draw_inputs
from xception_cli.evaluation.intervals import wilson_interval
from xception_cli.evaluation.page_style import STYLE
from xception_cli.evaluation.report import SCORES
from xception_cli.evaluation.scored import Scored, read_scored
from xception_cli.files import write_durably
from xception_cli.model.bundle import ModelBundle
from xception_cli.rundir import RunDir, read_json

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_MISTAKES, _UNSURE, _SEEN = 18, 12, 8  # pictures of the galleries
_FEW = 100  # images of an evaluation under which its interval is wide


@dataclass(frozen=True)
class _Run:
    """What the page is made from."""

    info: Mapping[str, Any]
    config: Mapping[str, Any]
    result: Mapping[str, Any]
    report: Mapping[str, Any]
    split: Split
    scored: Scored
    root: Path


def write_report(run: RunDir, bundle: ModelBundle, root: Path, result: Mapping[str, Any]) -> None:
    """Write the page of a run.

    Args:
        run: The run; its own evaluation is on disk.
        bundle: Its model, for the heat maps.
        root: The data folder, for the pictures; one that is gone leaves gaps.
        result: What result.json holds, or will.

    Raises:
        ArtifactError: A file of the run is missing or damaged.
        MachineError: The disk is full or read-only.
    """
    name = "test" if run.evaluation("test").is_dir() else "val"
    data = _Run(
        info=run.read_info(),
        config=read_toml(run.config),
        result=result,
        report=read_json(run.evaluation(name) / "metrics.json"),
        split=read_split(run.split, bundle.classes),
        scored=read_scored(run, name),
        root=root,
    )
    parts = [
        _first_screen(run, data),
        _curves(run, data),
        _confusions(data),
        _classes(data),
        *_galleries(data, bundle),
        _inputs(data, bundle),
        _calibration(data),
        _make_up(data),
        _settings(data),
    ]
    write_durably(run.report, _document(f"Run {show(run.path.name)}", "".join(parts)).encode())


def _document(title: str, body: str) -> str:
    return (
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style></head>\n"
        f"<body><main>\n<h1>{escape(title)}</h1>\n{body}</main></body></html>\n"
    )


def _section(title: str, body: str, lead: str = "") -> str:
    text = f"<p>{lead}</p>\n" if lead else ""
    return f"<section><h2>{escape(title)}</h2>\n{text}{body}</section>\n"


def _text(text: object) -> str:
    return escape(show(text))


def _percent(part: float | None) -> str:
    return "n/a" if part is None else f"{100 * part:.1f} %"


def _interval(ends: Sequence[float] | None, *, percent: bool) -> str:
    if ends is None or None in ends:
        return "n/a"
    low, high = ends
    return f"{100 * low:.1f} to {100 * high:.1f} %" if percent else f"{low:.3f} to {high:.3f}"


def _first_screen(run: RunDir, data: _Run) -> str:
    report, probe = data.report, data.result.get("probe")
    ends = (report["accuracy_low"], report["accuracy_high"])
    largest = max(row["n"] for row in report["per_class"])
    rows = [("this model", report["accuracy"], _interval(ends, percent=True))]
    if probe and report["name"] == "val" and data.result["kept"] != "the linear probe":
        rows.append(("the linear probe, the baseline", probe["accuracy"], ""))
    rows.append(("always saying the largest class", largest / report["images"], ""))
    bars = "".join(
        f"<tr><th scope=row>{what}</th><td><span class=bar style="
        f'"width:{100 * part:.1f}%"></span></td><td class=n>{_percent(part)}</td>'
        f"<td>{interval}</td></tr>\n"
        for what, part, interval in rows
    )
    todo = "".join(f"<li>{step}</li>\n" for step in _next_steps(run, data))
    return (
        f"<p class=big><b>{_percent(report['accuracy'])}</b> of {report['images']} "
        f"{report['name']} images are named right. On new images like them, expect between "
        f"{100 * ends[0]:.1f} and {100 * ends[1]:.1f} % (95 % interval).</p>\n"
        f"<p class=soft>{_text(report['note'] or 'these images chose nothing')}. "
        f"Kept: {_text(data.result['kept'])}.</p>\n"
        f"<table class=headline>{bars}</table>\n<h2>What to do next</h2>\n<ol>{todo}</ol>\n"
    )


def _next_steps(run: RunDir, data: _Run) -> list[str]:
    report, steps = data.report, []
    if report["confused"]:
        pair = report["confused"][0]
        total = round(pair["n"] / pair["part"])
        steps.append(
            f"Look at the mistakes below: {_text(pair['true'])} is taken for "
            f"{_text(pair['predicted'])} most often ({pair['n']} of {total}). A wrong label is "
            "found there first; else these two need more photos."
        )
    if report["images"] < _FEW:
        steps.append(
            f"{report['images']} images are few to judge by: hold out more "
            "(<code>--val-fraction</code>), or <code>xception eval --data DIR</code> with new ones."
        )
    small = min(data.split.counts("train"))
    if small < 30:
        name = data.split.classes[data.split.counts("train").index(small)]
        steps.append(f"{_text(name)} has only {small} training photos: add some.")
    steps.append(
        f"<code>xception check {_text(data.report['data'])}</code> looks for copies and oddities."
    )
    steps.append(
        f"<code>xception predict PHOTO.jpg --run {_text(quoted(run.path))}</code> uses the model."
    )
    return steps


def _curves(run: RunDir, data: _Run) -> str:
    if not run.metrics.is_file():
        return ""
    rows = read_rows(run.metrics.read_text(encoding="utf-8"))
    kept = str(data.result["kept"]).rpartition("epoch ")[2]
    best = int(kept) if kept.isdigit() else 0
    lead = "The dotted line is the epoch that was kept." if best else ""
    return _section("Training", draw_curves(rows, best), lead)


def _confusions(data: _Run) -> str:
    counts = np.array(data.report["confusion"])
    names = [row["name"] for row in data.report["per_class"]]
    views = {
        "by class": list(range(len(names))),
        "by what is confused": confusion_order(counts),
    }
    inputs, matrices = [], []
    for number, (title, order) in enumerate(views.items()):
        checked = "" if number else " checked"
        inputs.append(
            f"<input type=radio name=order id=order{number}{checked}>"
            f"<label for=order{number}>{title}</label>\n"
        )
        matrix = draw_matrix(counts, names, order, f"Confusion matrix, ordered {title}")
        matrices.append(f'<div class="view view{number}">{matrix}</div>\n')
    lead = (
        "Rows are what the images show, columns what they were named. Blue is recognised, orange "
        "is confused. Hover a cell for its figures."
    )
    return _section("What is taken for what", "".join([*inputs, *matrices]), lead)


def _classes(data: _Run) -> str:
    columns = ("class", "n", "recall", "95 % interval", "precision", "95 % interval", "F1")
    rows = []
    for row in data.report["per_class"]:
        recall = (row["recall_low"], row["recall_high"])
        precision = (row["precision_low"], row["precision_high"])
        f1 = "n/a" if row["f1"] is None else f"{row['f1']:.3f}"
        cells = (
            row["n"],
            _percent(row["recall"]),
            _interval(recall, percent=True),
            _percent(row["precision"]),
            _interval(precision, percent=True),
            f1,
        )
        rows.append(
            f"<tr><th scope=row>{_text(row['name'])}</th>"
            + "".join(f"<td>{cell}</td>" for cell in cells)
            + "</tr>\n"
        )
    table = _table(columns, rows)
    return _section("Class by class", f"{table}\n{_scores(data)}")


def _scores(data: _Run) -> str:
    rows = []
    for name, title in SCORES.items():
        value, percent = data.report[name], name in {"top_k_accuracy", "macro_recall"}
        if value is None:
            continue
        shown = _percent(value) if percent else f"{value:.3f}"
        interval = _interval(data.report["intervals"].get(name), percent=percent)
        what = title.format(k=data.report["top_k"])
        rows.append(f"<tr><th scope=row>{what}</th><td>{shown}</td><td>{interval}</td></tr>\n")
    return _table(("over all classes", "value", "95 % interval"), rows)


def _table(columns: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f"<th scope=col>{name}</th>" for name in columns)
    return f"<div class=scroll><table class=figures><tr>{head}</tr>\n{''.join(rows)}</table></div>"


def _galleries(data: _Run, bundle: ModelBundle) -> list[str]:
    scored, guesses = data.scored, data.scored.guesses
    best = scored.probabilities.max(axis=1)
    wrong, right = (np.flatnonzero((guesses == scored.labels) == value) for value in (False, True))
    mistakes = wrong[np.argsort(-best[wrong], kind="stable")][:_MISTAKES]
    unsure = right[np.argsort(best[right], kind="stable")][:_UNSURE]
    cards = draw_cards(scored, data.root, bundle, [*mistakes.tolist(), *unsure.tolist()])
    heat = "Beside each photo: brighter is what the answer rests on (Grad-CAM)."
    parts = []
    for title, shown, lead in (
        (
            "The worst mistakes",
            cards[: len(mistakes)],
            "The surest ones: a wrong label would be here.",
        ),
        ("Right, but least sure", cards[len(mistakes) :], "More photos like these help most."),
    ):
        body = f"<div class=cards>{''.join(shown)}</div>" if shown else "<p>There are none.</p>"
        parts.append(_section(title, body, f"{lead} {heat}" if shown else ""))
    return parts


def _inputs(data: _Run, bundle: ModelBundle) -> str:
    paths = [image.path for image in data.split.of("train")]
    body = draw_inputs(
        data.root,
        paths[:: max(1, len(paths) // _SEEN)][:_SEEN],
        bundle.preprocessing,
        augment=data.config["augment"],
        flip=data.config["flip"],
        seed=data.config["seed"],
    )
    lead = "Left as in evaluation, then two of the random views that training draws."
    return _section("What the network sees", f"<div class=cards>{body}</div>", lead)


def _calibration(data: _Run) -> str:
    picture = draw_calibration(data.scored.probabilities, data.scored.labels)
    image = (
        f'<img class=plot src="data:image/png;base64,{b64encode(picture).decode()}" '
        'alt="Reliability diagram, and precision over coverage">'
    )
    found, lead = data.result.get("calibration"), ""
    if found:
        lead = (
            f"Temperature {found['temperature']:.3g}, fitted on val. Calibration error on these "
            f"images: {data.report['calibration_error']:.3f}."
        )
    if data.report["answered"]:
        answered, images = data.report["answered"], data.report["images"]
        right = data.report["answered_correct"]
        lead += (
            f" With <code>--unknown auto</code> it answers {answered} of {images}; of these "
            f"{right} are right, {_percent(right / answered)} "
            f"({_interval(wilson_interval(right, answered), percent=True)})."
        )
    return _section("How sure it is", image, lead)


def _make_up(data: _Run) -> str:
    splits = [name for name in ("train", "val", "test") if any(data.split.counts(name))]
    counts = {name: data.split.counts(name) for name in splits}
    most = max(max(column) for column in counts.values())
    head = "".join(f"<th scope=col>{name}</th>" for name in splits)
    rows = []
    for label, name in enumerate(data.split.classes):
        cells = "".join(
            f'<td><span class=bar style="width:{70 * counts[split][label] / most:.1f}%"></span> '
            f"{counts[split][label]}</td>"
            for split in splits
        )
        rows.append(f"<tr><th scope=row>{_text(name)}</th>{cells}</tr>\n")
    table = f"<table class=bars><tr><th scope=col>class</th>{head}</tr>\n{''.join(rows)}</table>"
    out = len(data.split.of("out"))
    return _section(
        "The data", table, f"{out} images were left out; split.csv says why." if out else ""
    )


def _settings(data: _Run) -> str:
    info = data.info
    facts = {
        "command": info["command"],
        "started": info["started"],
        "device": f"{info['device']}, {info['precision']}",
        "weights": f"{info['weights']['source']} {info['weights']['digest'] or ''}",
        "data fingerprint": info["data_fingerprint"],
        **{f"{name} (version)": value for name, value in info["versions"].items()},
    }
    # The data folder is an absolute path, which is nobody else's business.
    settings = {name: value for name, value in data.config.items() if name != "data"}
    tables = "".join(
        "<div class=scroll><table>"
        + "".join(
            f"<tr><th scope=row>{_text(name)}</th><td><code>{_text(value)}</code></td></tr>\n"
            for name, value in rows.items()
        )
        + "</table></div>\n"
        for rows in (facts, settings)
    )
    lead = "<code>xception train --config config.toml</code> in this run's folder repeats it."
    return _section("Settings and versions", f"<div class=columns>{tables}</div>", lead)
