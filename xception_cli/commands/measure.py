"""eval, compare, report and runs: how good a model is, and which is better."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from xception_cli import api
from xception_cli.commands.options import Device, MaxPixels, TableRoot, Workers, allow_pixels
from xception_cli.console import emit, fail, quoted, say, show
from xception_cli.errors import UsageError
from xception_cli.runs import RUNS, find_run


def evaluate(
    run: Annotated[Path | None, typer.Argument(help="Run folder (default: the latest).")] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR|TABLE", help="Other photos, of the same classes."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(metavar="val|test", help="Which split (default: test, else val).")
    ] = None,
    ignore_extra_classes: Annotated[
        bool, typer.Option(help="Leave out classes that the model does not know.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
    device: Device = "auto",
    workers: Workers = None,
    model: Annotated[
        Path | None, typer.Option(help="Exported .onnx file, instead of the run's model.")
    ] = None,
    tta: Annotated[
        str | None,
        typer.Option(metavar="mirror|none", help="Instead of what training decided; see train."),
    ] = None,
    root: TableRoot = None,
    listed: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FILE|-",
            help="Only these of the photos: a list with a path per line; - is stdin.",
        ),
    ] = None,
    max_pixels: MaxPixels = None,
) -> None:
    """Measure a model on photos that it was not trained on."""
    api.check_selection(data, split, root)
    only = None
    if listed is not None:
        from xception_cli.data.lists import open_list

        only = open_list(listed)
    chosen = find_run(run)
    allow_pixels(max_pixels)
    if run is None:
        say(f"run       {show(chosen.path)} (the latest)")
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
    from xception_cli.evaluation.files import (
        answered_line,
        confused_line,
        contaminated_line,
        headline,
        report_table,
        scores_table,
    )

    for part in (
        [json.dumps(report.to_dict())]
        if as_json
        else [report_table(report), "", scores_table(report)]
    ):
        emit(part)
    say(f"result    {headline(report)}", style="bold")
    if contaminated := contaminated_line(report):
        say(f"          {contaminated}")
    if confused := confused_line(report):
        say(f"confused  {confused}")
    if answered := answered_line(report):
        say(f"unknown   {answered}")
    if report.note:
        say(f"note      {report.note}")
    say(f"files     {show(chosen.evaluation(report.name))}")
    if report.failures:
        for failure in report.failures[:20]:
            say(f"          {show(failure.path)}: {show(failure.reason)}")
        fail(f"{len(report.failures)} images could not be scored, see predictions.csv", None)
        raise typer.Exit(3)
    say(f"next: xception predict PHOTO.jpg --run {quoted(chosen.path)}")


def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN_A RUN_B...", help="The first is compared with.")
    ],
    on: Annotated[
        str | None,
        typer.Option(help="Which evaluation, by its folder in eval/ (default: test, else val)."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON per pair.")] = False,
) -> None:
    """Compare runs on the same images: who is right where, and could it be chance.

    Runs of different classes are compared on the images of the classes that they have in common.
    """
    if len(runs) < 2:
        raise UsageError("one run has nothing to be compared with", hint="xception compare A B")
    first, *others = [find_run(run) for run in runs]

    from xception_cli.evaluation.compare import (
        choose_evaluation,
        compare_runs,
        correct_comparisons,
    )
    from xception_cli.evaluation.compared import (
        class_note,
        comparison_tables,
        selection_note,
        verdict,
    )

    name = choose_evaluation([first, *others], on)
    comparisons = correct_comparisons([compare_runs(first, other, name) for other in others])
    for other, comparison in zip(others, comparisons, strict=True):
        parts: list[Any] = [json.dumps(comparison.to_dict())]
        if not as_json:
            parts = [part for table in comparison_tables(comparison) for part in (table, "")][:-1]
        for part in parts:
            emit(part)
        if comparison.unmatched:
            say(f"note      {comparison.unmatched} images of {name} were scored by one run only")
        if note := class_note(comparison):
            say(f"note      {note}")
        say(f"result    {show(other.path)}: {verdict(comparison)}", style="bold")
    if note := selection_note(comparisons[0]):
        say(f"note      {note}")


def report(
    run: Annotated[Path | None, typer.Argument(help="Run folder (default: the latest).")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Where the run's photos are now, if they moved.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Draw a run's report.html again."""
    chosen = find_run(run)
    result = chosen.read_result()

    from xception_cli.evaluation.selection import find_images
    from xception_cli.model.bundle import load_model
    from xception_cli.report.run_page import write_report
    from xception_cli.runtime import decide_runtime

    bundle = load_model(chosen.model, decide_runtime(device=device))
    write_report(chosen, bundle, find_images(chosen, bundle.classes, data), result)
    emit(str(chosen.report))
    say("next: open it in a browser")


def list_runs(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of run folders.")] = RUNS,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON per run.")] = False,
) -> None:
    """List runs with their key figures, the latest first."""
    from xception_cli import runs

    found = runs.list_runs(folder)
    for part in (
        [json.dumps(run.to_dict()) for run in found] if as_json else [runs.runs_table(found)]
    ):
        emit(part)
    say("next: xception compare RUN_A RUN_B")
