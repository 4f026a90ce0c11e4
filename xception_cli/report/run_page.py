"""report.html: a run on one page, without a script, that loads nothing and opens from disk."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xception_cli.console import quoted, show, typed
from xception_cli.data.fixes import SUSPECTS, read_issues
from xception_cli.data.split import Split, read_split
from xception_cli.errors import UsageError
from xception_cli.evaluation.eval_report import EvalReport, read_report
from xception_cli.evaluation.files import draw_calibration, scores
from xception_cli.evaluation.intervals import texts
from xception_cli.evaluation.scored import Scored, read_scored
from xception_cli.files import file_digest, write_durably
from xception_cli.model.bundle import ModelBundle
from xception_cli.report.charts import confusion_order, draw_curves, draw_matrix, read_rows
from xception_cli.report.html import columns, document, scrolling, text
from xception_cli.report.pictures import draw_cards, draw_inputs, draw_issues
from xception_cli.rundir import RunDir
from xception_cli.settings import read_toml
from xception_cli.summary.count import summarize_run
from xception_cli.summary.diagram import draw_diagram

_MISTAKES, _UNSURE, _SEEN = 18, 12, 8  # pictures of the galleries
_PAIRS = 5  # most confused ones, in words
_FEW = 100  # images of an evaluation under which its interval is wide
_GAINS = 3  # classes for which more images are asked
_CONFIDENT = 0.9  # probability from which an answer is not among the least confident ones


@dataclass(frozen=True)
class _Run:
    """What the page is made from."""

    info: Mapping[str, Any]
    config: Mapping[str, Any]
    result: Mapping[str, Any]
    report: EvalReport
    split: Split
    scored: Scored
    issues: list[dict[str, str]] | None
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
        report=read_report(run, name),
        split=read_split(run.split, bundle.classes),
        scored=read_scored(run, name),
        issues=_read_issues(run),
        root=root,
    )
    lead = "As measured on these images, without the correction." * bool(data.report.corrected)
    parts = [
        _first_screen(run, data),
        _curves(run, data),
        _confusions(data),
        _section("Class by class", class_table(data.report) + scores_table(data.report), lead),
        *_galleries(data, bundle),
        _issues(data),
        _inputs(data, bundle),
        _calibration(data),
        _make_up(data),
        _network(run, data),
        _settings(run, data),
    ]
    page = document(f"Run {show(run.path.name)}", "".join(parts), STYLE)
    write_durably(run.report, page.encode())


def _read_issues(run: RunDir) -> list[dict[str, str]] | None:
    """Read issues.csv, which a person may have edited at will, or taken away."""
    try:
        return read_issues(run.issues)
    except UsageError:
        return None


def _section(title: str, body: str, lead: str = "") -> str:
    first = f"<p>{lead}</p>\n" if lead else ""
    return f"<section><h2>{title}</h2>\n{first}{body}</section>\n"


def _first_screen(run: RunDir, data: _Run) -> str:
    report, probe = data.report, data.result.get("probe")
    accuracy = report.expected
    largest = max(row.n for row in report.per_class)
    rows = [("this model", accuracy.value, texts(accuracy, percent=True)[1])]
    if probe and report.name == "val" and data.result["kept"] != "the linear probe":
        rows.append(("the linear probe, the baseline", probe["accuracy"], ""))
    rows.append(("always predicting the largest class", largest / report.images, ""))
    bars = "".join(
        f"<tr><th scope=row>{what}</th><td><span class=bar style="
        f'"width:{100 * part:.1f}%"></span></td><td class=n>{part:.1%}</td>'
        f"<td>{range_}</td></tr>\n"
        for what, part, range_ in rows
    )
    todo = "".join(f"<li>{step}</li>\n" for step in _next_steps(run, data))
    # A note is there where val selected the model, and no candidates were kept to correct for it.
    claim = "on these images" if report.note else "to expect on new images like these"
    note = f"{text(report.note)}. " if report.note else ""
    return (
        f"<p class=big><b>{accuracy.value:.1%}</b> is the accuracy {claim} "
        f"({accuracy.interval}, {_origin(report)}).</p>\n"
        f"<p class=soft>{note}Kept: {text(data.result['kept'])}.</p>\n"
        f"<table class=headline>{bars}</table>\n<h2>What to do next</h2>\n<ol>{todo}</ol>\n"
    )


def _origin(report: EvalReport) -> str:
    """Describe which images the first figure is from, and what was corrected."""
    what = {"val": "validation", "test": "held-out test"}[report.name]
    counted = f"from {report.images:,} {what} images"
    if report.groups < report.images:
        counted += f" in {report.groups:,} group{'s' * (report.groups > 1)}"
    if report.corrected:
        models = report.corrected.candidates
        counted += f", corrected for selecting the best of {models} models on them"
    return counted


def _next_steps(run: RunDir, data: _Run) -> list[str]:
    report, steps, place = data.report, [], quoted(typed(data.root))
    if report.confused:
        pair = report.confused[0]
        steps.append(
            f"Look at the mistakes below, wrong labels first: {text(pair.true)} is confused "
            f"with {text(pair.predicted)} most often ({pair.n} of {round(pair.n / pair.part)})."
        )
    if weak := _weakest(report):
        steps.append(weak)
    suspect = sum(row.get("problem") in SUSPECTS for row in data.issues or ())
    if suspect:
        command = f"xception train --data {place} --fixes {quoted(run.issues)}"
        steps.append(
            f"{suspect} of {len(data.split.images)} labels are suspect: check the images below, "
            "edit the column <code>action</code> of issues.csv, then "
            f"<code>{text(command)}</code>."
        )
    if report.groups < _FEW:
        steps.append(
            f"{report.images} images are few to judge by: hold out more "
            "(<code>--val-fraction</code>), or <code>xception eval --data DIR</code> with new ones."
        )
    if gains := data.result.get("gains", [])[:_GAINS]:
        names = (f"{text(g['name'])} ({g['half']:.0%} to {g['whole']:.0%})" for g in gains)
        steps.append(
            f"More images of these classes are likely to help: {', '.join(names)}. In brackets: "
            "cross-validated recall of the linear probe with half of the training images and with "
            "all of them."
        )
    steps.append(f"<code>xception check {text(place)}</code> finds copies and unusual images.")
    steps.append(
        f"<code>xception predict PHOTO.jpg --run {text(quoted(run.path))}</code> uses the model."
    )
    return steps


def _weakest(report: EvalReport) -> str:
    """Name the class of the lowest recall, if it is clearly lower than accuracy; else empty."""
    known = [(row.recall, row.name) for row in report.per_class if row.recall is not None]
    recall, name = min(known, key=lambda pair: pair[0].value)
    if recall.high is None or recall.high >= report.accuracy.value:
        return ""
    return f"{text(name)} has the lowest recall: {recall.value:.1%} ({recall.interval})."


def _curves(run: RunDir, data: _Run) -> str:
    if not run.metrics.is_file():
        return ""
    rows = read_rows(run.metrics.read_text(encoding="utf-8"))
    kept = str(data.result["kept"]).rpartition("epoch ")[2]
    best = int(kept) if kept.isdigit() else 0
    lead = "The dotted line is the epoch that was kept." if best else ""
    return _section("Training", draw_curves(rows, best), lead)


def _confusions(data: _Run) -> str:
    counts = np.array(data.report.confusion)
    names = [row.name for row in data.report.per_class]
    views = {
        "by class": list(range(len(names))),
        "by what is confused": confusion_order(counts),
    }
    inputs, matrices = ["<legend>Order of the classes</legend>\n"], []
    for number, (title, order) in enumerate(views.items()):
        checked = "" if number else " checked"
        inputs.append(
            f"<input type=radio name=order id=order{number}{checked}>"
            f"<label for=order{number}>{title}</label>\n"
        )
        matrix = draw_matrix(counts, names, order, f"Confusion matrix, ordered {title}")
        matrices.append(f'<div class="view view{number}">{matrix}</div>\n')
    said = ", ".join(
        f"{text(pair.true)} for {text(pair.predicted)} ({pair.n})"
        for pair in data.report.confused[:_PAIRS]
    )
    lead = (
        "Rows are true classes, columns predicted ones. Blue is correct, orange is confused. Hover "
        f"over a cell for its figures. Most often: {said or 'nothing is confused'}."
    )
    body = f"<fieldset>{''.join([*inputs, *matrices])}</fieldset>"
    return _section("Confusion matrix", body, lead)


def _galleries(data: _Run, bundle: ModelBundle) -> list[str]:
    scored, guesses = data.scored, data.scored.guesses
    best = scored.probabilities.max(axis=1)
    wrong, right = (np.flatnonzero((guesses == scored.labels) == value) for value in (False, True))
    mistakes = wrong[np.argsort(-best[wrong], kind="stable")][:_MISTAKES]
    right = right[best[right] < _CONFIDENT]
    unsure = right[np.argsort(best[right], kind="stable")][:_UNSURE]
    cards = draw_cards(scored, data.root, bundle, [*mistakes.tolist(), *unsure.tolist()])
    heat = "With each image: bright areas contributed most to the answer (Grad-CAM)."
    parts = []
    for title, shown, lead in (
        (
            "The most confident mistakes",
            cards[: len(mistakes)],
            "A wrong label would be among these.",
        ),
        (
            "Correct, but least confident",
            cards[len(mistakes) :],
            f"The lowest probabilities of correct answers, all under {_CONFIDENT:.0%}.",
        ),
    ):
        body = (
            f'<div class="cards wide">{"".join(shown)}</div>' if shown else "<p>There are none.</p>"
        )
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
    return _section("What the network sees", f'<div class="cards wide">{body}</div>', lead)


def _calibration(data: _Run) -> str:
    scored = data.scored
    picture = draw_calibration(scored.probabilities, scored.labels, scored.units)
    image = (
        f'<img class=plot src="data:image/png;base64,{b64encode(picture).decode()}" '
        'alt="Reliability diagram, and precision over coverage">'
    )
    found, lead = data.result.get("calibration"), ""
    if found:
        lead = (
            f"Temperature {found['temperature']:.3g}, from validation images. Calibration error "
            f"(ECE) on these images: {data.report.calibration_error.value:.3f}."
        )
    if data.report.answer_precision is not None:
        answered, right = data.report.answered, data.report.answered_correct
        lead += (
            f" With <code>--unknown auto</code>, {answered} of {data.report.images} images get an "
            f"answer; {right} of these are correct, {data.report.answer_precision.value:.1%}."
        )
    if found and "precision_confidence" in found:
        target = f"{100 * found['target_precision']:g}%"
        sure = f"{found['precision_confidence']:.0%} confidence"
        lead += (
            f" No threshold guarantees {target} precision ({sure}) with these validation images: "
            "only images unlike the training images are refused."
            if found["confidence"] is None
            else f" On new images like these, at least {target} are ({sure})."
        )
    return _section("Confidence", scrolling("Calibration", image), lead)


def _issues(data: _Run) -> str:
    title = "Suspected wrong labels and copies"
    if data.issues is None:
        return _section(title, "<p>issues.csv of this run cannot be read.</p>\n")
    body = draw_issues(data.issues, data.root)
    lead = (
        "Candidates for a check by eye: correct but unusual images are listed too. Write "
        "<code>exclude</code> or "
        "<code>relabel</code> into the column <code>action</code> of issues.csv in this run's "
        "folder, and give it to <code>xception train --fixes</code>."
    )
    return _section(title, body or "<p>There are none.</p>\n", lead if body else "")


def _make_up(data: _Run) -> str:
    out = len(data.split.of("out"))
    lead = f"{out} images were left out; split.csv says why." if out else ""
    return _section("The data", make_up_table(data.split), lead)


def _network(run: RunDir, data: _Run) -> str:
    summary = summarize_run(run)
    parts = {
        trained: ", ".join(flow.name for flow in summary.flows if flow.trained is trained)
        for trained in (False, True)
    }
    lead = f"Frozen: {parts[False] or 'nothing'}. Trained: {parts[True]}."
    if data.result["kept"] == "the linear probe" and summary.unfreeze != "head":
        lead += " What was kept is the linear probe, of which only the head was trained."
    return _section("The network", scrolling("Block diagram", draw_diagram(summary)), lead)


def _settings(run: RunDir, data: _Run) -> str:
    command = f"xception train --config {quoted(run.config)}"
    tables = settings_tables(data.info, data.config, data.result, file_digest(run.model))
    lead = f"<code>{text(command)}</code> repeats the run."
    return _section("Settings, versions, hashes", tables, lead)


def class_table(report: EvalReport) -> str:
    """Draw what was measured for each class."""
    rows = []
    for row in report.per_class:
        plain = (row.f1, row.average_precision)
        cells = (
            row.n,
            *texts(row.recall, percent=True),
            *texts(row.precision, percent=True),
            *(texts(estimate, percent=False)[0] for estimate in plain),
        )
        rows.append(_row(row.name, cells))
    titles = ("class", "n", "recall", "95% CI", "precision", "95% CI", "F1")
    return _scrolling("Class by class", columns(*titles, "average precision"), rows)


def scores_table(report: EvalReport) -> str:
    """Draw what was measured over all classes, each number with its interval."""
    rows = [_row(name, figures) for name, *figures in scores(report)]
    return _scrolling("Over all classes", columns("over all classes", "value", "95% CI"), rows)


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


STYLE = """
ol { margin: 0 0 .8rem; padding-left: 1.3rem; max-width: 65ch; } li { margin: .25rem 0; }
.big { font-size: 1.15rem; } .big b { font-size: 2.6rem; line-height: 1.1; display: block; }
.soft { color: var(--soft); }
.figures td, .figures th[scope=col]:not(:first-child) { text-align: right; white-space: nowrap; }
.figures th { overflow-wrap: normal; min-width: 5rem; }
.headline { width: 100%; max-width: 46rem; margin-bottom: 1.2rem; } .headline th { width: 38%; }
.headline td:nth-child(2) { width: 30%; padding-right: .6rem; }
.headline td:nth-child(4), .n { white-space: nowrap; } .n { font-weight: 600; }
.columns { display: grid; gap: 0 2rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); }
.facts th { min-width: 8rem; }
.bars { table-layout: fixed; width: 100%; max-width: 46rem; } .bars th:first-child { width: 30%; }
.chart { width: 100%; height: auto; max-width: 60rem; }
.matrix { width: 100%; height: auto; font-size: 8.5px; fill: currentColor; display: block; }
.matrix .ground { fill: var(--card); } .matrix .right { fill: var(--right); }
.matrix .wrong { fill: var(--wrong); }
.matrix .count { pointer-events: none; font-size: 8px; fill: var(--count); }
.matrix .strong { fill: var(--strong); }
fieldset { border: 0; margin: 0; padding: 0; min-width: 0; }
legend { padding: 0 1rem 0 0; float: left; }
.view { display: none; margin-top: .6rem; } input + label { margin: 0 1.2rem 0 .3rem; }
#order0:checked ~ .view0, #order1:checked ~ .view1 { display: block; }
.plot { width: 100%; min-width: 36rem; max-width: 54rem; height: auto; background: #fff;
  border-radius: .5rem; }
svg.xception { width: 100%; min-width: 60rem; height: auto; }
@media (max-width: 36rem) { .headline td:nth-child(2) { display: none; }
  .headline th { width: auto; } }
@media print { .view { display: block; break-inside: avoid; }
  input, label, legend { display: none; }
  .plot, svg.xception { min-width: 0; }
  .matrix, .bar { print-color-adjust: exact; } }
"""
