"""eval, compare, report and runs: how good a model is, and which is better."""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xception_cli import api
from xception_cli.classifiers import check_classifier
from xception_cli.commands.complete import choices, run_folders
from xception_cli.commands.options import (
    IMAGES,
    MODEL,
    Device,
    HiddenRun,
    Json,
    JsonLines,
    MaxPixels,
    Run,
    TableRoot,
    Tta,
    Workers,
    allow_pixels,
    choose_run,
    one_run,
)
from xception_cli.console import emit, fail, quoted, say, show
from xception_cli.errors import UsageError
from xception_cli.imports import importing
from xception_cli.numerals import count_of
from xception_cli.rundir import METRICS, RunDir
from xception_cli.runs import RUNS, find_run

if TYPE_CHECKING:
    from xception_cli.evaluation.comparison import Comparison
    from xception_cli.evaluation.eval_report import EvalReport


def evaluate(
    run: Run = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|TABLE",
            help="Evaluate on other images of the same classes: a folder, or a table (.csv, .tsv "
            "or .parquet).",
            rich_help_panel=IMAGES,
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="val|test",
            help="Split to evaluate on. Default: test if the run has one, else val.",
            autocompletion=choices(("val", "test")),
            rich_help_panel=IMAGES,
        ),
    ] = None,
    listed: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FILE|-",
            help="Evaluate only on the images in this list, one path per line; - is stdin.",
            rich_help_panel=IMAGES,
        ),
    ] = None,
    root: TableRoot = None,
    ignore_extra_classes: Annotated[
        bool,
        typer.Option(
            help="Ignore images of classes that the model does not have.", rich_help_panel=IMAGES
        ),
    ] = False,
    max_pixels: MaxPixels = None,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Evaluate this exported .onnx file instead of the run's model.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    tta: Tta = None,
    as_json: Json = False,
    device: Device = "auto",
    workers: Workers = None,
    same_run: HiddenRun = None,
) -> None:
    """Evaluate a model on images that it was not trained on.

    Prints accuracy and other metrics with 95% confidence intervals, and writes them with the
    confusion matrix and each prediction into the run folder.
    """
    run = one_run(run, same_run)
    api.check_selection(data, split, root)
    only = None
    if listed is not None:
        from xception_cli.data.lists import open_list

        only = open_list(listed)
    chosen = choose_run(run)
    check_classifier(chosen.model if model is None else model, device=device, tta=tta)
    allow_pixels(max_pixels)
    with importing():
        import xception_cli.evaluation.evaluate  # noqa: F401 - which api.evaluate imports
    report = api.evaluate(
        chosen.path,
        data,
        split,
        root=root,
        only=only,
        ignore_extra_classes=ignore_extra_classes,
        model=model,
        tta=tta,
        device=device,
        workers=workers,
        verbose=True,
    )
    _print_report(report, as_json=as_json)
    say(f"files     {show(chosen.evaluation(report.name))}")
    if report.failures:
        for failure in report.failures[:20]:
            say(f"          {show(failure.path)}: {show(failure.reason)}")
        failed = count_of(len(report.failures), "image")
        fail(f"{failed} could not be read; predictions.csv lists them", None)
        raise typer.Exit(3)
    page = f"open {quoted(chosen.report)}, or: " if data is None and chosen.is_finished else ""
    say(f"next: {page}xception predict {quoted(chosen.path)} IMAGE.jpg")


def _print_report(report: "EvalReport", *, as_json: bool) -> None:
    from xception_cli.evaluation.described import (
        answered_line,
        confused_line,
        report_table,
        say_result,
        scores_table,
    )

    for part in (
        [json.dumps(report.to_dict())]
        if as_json
        else [report_table(report), "", scores_table(report)]
    ):
        emit(part)
    say_result(report)
    if confused := confused_line(report):
        say(f"confused  {confused}")
    if answered := answered_line(report):
        say(f"unknown   {answered}")
    if report.note:
        say(f"note      {report.note}")
    if report.left_out:
        say(f"          left_out in {METRICS} lists the images")


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN RUN...",
            help="Run folders; each is compared with the first.",
            autocompletion=run_folders,
        ),
    ],
    on: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Evaluation to compare: the name of a folder in eval/ of the first run. Default: "
            "test if there is one, else val.",
            rich_help_panel=IMAGES,
        ),
    ] = None,
    as_json: JsonLines = False,
) -> None:
    """Compare runs on the same images, and test whether the difference could be chance.

    Runs with different classes are compared on the images of their common classes.
    """
    if len(runs) < 2:
        raise UsageError(
            f"only one run is given, {show(runs[0])}",
            hint=f"xception compare {quoted(runs[0])} RUN; xception runs lists runs",
        )
    first, *others = [find_run(run) for run in runs]

    with importing():
        from xception_cli.evaluation.common_evaluation import choose_evaluation
        from xception_cli.evaluation.comparison import compare_runs, correct_comparisons
        from xception_cli.evaluation.comparison_text import selection_note

    name = choose_evaluation([first, *others], on)
    comparisons = correct_comparisons([compare_runs(first, other, name) for other in others])
    for other, comparison in zip(others, comparisons, strict=True):
        _print_comparison(first, other, comparison, as_json=as_json)
    if note := selection_note(comparisons[0]):
        say(f"note      {note}")
    say(f"next: xception eval {quoted(others[-1].path)} --data DIR")


def _print_comparison(
    first: RunDir, other: RunDir, comparison: "Comparison", *, as_json: bool
) -> None:
    from xception_cli.evaluation.common_evaluation import different_splits
    from xception_cli.evaluation.comparison_text import class_note, comparison_tables, verdict

    parts: list[Any] = [json.dumps(comparison.to_dict())]
    if not as_json:
        parts = [part for table in comparison_tables(comparison) for part in (table, "")][:-1]
    for part in parts:
        emit(part)
    if comparison.unmatched:
        unmatched = count_of(comparison.unmatched, "image")
        say(f"note      {unmatched} of {comparison.name} scored by one run only")
        if comparison.name in {"val", "test"}:
            reason, train, evaluation = different_splits(first, other)
            say(
                f"          {reason}; to compare them on the same images, "
                f"{'train on one split' if train else 'evaluate both on other images'}:"
            )
            if train:
                say(f"          {train}")
                say("          or evaluate both on other images:")
            say(f"          {evaluation}")
    if note := class_note(comparison):
        say(f"note      {note}")
    say(f"result    {show(other.path)}: {verdict(comparison)}", style="bold")


def report(
    run: Run = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|TABLE",
            help="Folder or table (.csv, .tsv or .parquet) of the run's images, if they moved.",
            rich_help_panel=IMAGES,
        ),
    ] = None,
    device: Device = "auto",
    same_run: HiddenRun = None,
) -> None:
    """Regenerate the report.html of a run."""
    run = one_run(run, same_run)
    chosen = find_run(run)
    result = chosen.read_result()

    with importing():
        from xception_cli.evaluation.places import find_images
        from xception_cli.model.bundle import load_model
        from xception_cli.report.run_page import write_report
        from xception_cli.runtime import decide_runtime

    bundle = load_model(chosen.model, decide_runtime(device=device))
    write_report(chosen, bundle, find_images(chosen, bundle.classes, data), result)
    emit(str(chosen.report))
    say("next: open it in a browser")


def list_runs(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with the runs.")] = RUNS,
    as_json: JsonLines = False,
) -> None:
    """List runs with their key figures, the latest first."""
    from xception_cli import run_figures

    found = run_figures.list_runs(folder)
    if as_json:
        for run in found:
            emit(json.dumps(run.to_dict()))
    else:
        emit(partial(run_figures.runs_table, found))
    finished, unfinished = (
        [run.run for run in found if run.state == state] for state in ("finished", "unfinished")
    )
    if finished:
        newest, *earlier = finished
        classes = _classes_of(newest)
        alike = next((run for run in earlier if _classes_of(run) == classes), None)
        command = "eval" if alike is None else f"compare {quoted(alike)}"
        say(f"next: xception {command} {quoted(newest)}")
    else:
        resume = f"--resume {quoted(unfinished[0])}" if unfinished else "DIR"
        say(f"next: xception train {resume}")


def _classes_of(run: str) -> set[str]:
    return {*RunDir(Path(run)).read_info().classes}
