"""The commands: read options, call one function, print, exit code. No torch at import."""

import dataclasses
import inspect
import json
import os
import sys
import traceback
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from xception_cli import __version__
from xception_cli.config import TrainConfig, flag, resolve, setting_type
from xception_cli.console import emit, fail, quoted, say, screen, show
from xception_cli.errors import MachineError, UsageError, XceptionError
from xception_cli.files import write_durably
from xception_cli.recipes import copy_recipe, find_config, find_recipe, list_recipes, title

app = typer.Typer(
    name="xception",
    help="Fine-tune an ImageNet-pretrained Xception on a folder of photos.",
    epilog="Start with: xception sample ./food, then xception train --data ./food",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
weights_app = typer.Typer(
    help="The pretrained weights: where they come from, and whether they are the right ones.",
    no_args_is_help=True,
)
app.add_typer(weights_app, name="weights")
configs_app = typer.Typer(
    help="The shipped recipes: complete settings, each with what it gave.", no_args_is_help=True
)
app.add_typer(configs_app, name="configs")

_LATEST = "latest"  # what a bare --resume means


def _version(wanted: bool) -> None:
    if wanted:
        emit(f"xception {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")] = False,
) -> None:
    screen.quiet = quiet


def _settings_as_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option per setting of `TrainConfig`, beside its own.

    Typer reads options from a signature, so the signature is written from the settings; the
    command gets them as keyword arguments, None where they were not given.
    """
    own = [
        parameter
        for parameter in inspect.signature(command).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    options = [_option(setting) for setting in dataclasses.fields(TrainConfig)]
    parameters = [*options, *own]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def _option(setting: "dataclasses.Field[Any]") -> inspect.Parameter:
    kind = setting_type(setting)
    choices = typing.get_args(kind)
    default = "" if setting.default in {None, ""} else f" (default: {_shown(setting.default)})"
    names = [flag(setting.name)]
    if kind is bool:
        names = [f"{flag(setting.name)}/{flag('no_' + setting.name)}"]
    option = typer.Option(
        *names,
        help=f"{setting.metadata['help']}{default}",
        metavar="|".join(choices) if choices else None,
        rich_help_panel=setting.metadata["group"],
        show_default=False,
    )
    # Choices stay text here: TrainConfig checks them, with the same words for TOML and flags.
    annotated: Any = str if choices else kind
    return inspect.Parameter(
        setting.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[annotated | None, option],
    )


def _shown(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


@app.command()
@_settings_as_options
def train(
    *,
    output: Annotated[
        Path | None, typer.Option(help="Run folder (default: runs/ and the data folder's name).")
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(metavar="FILE|NAME", help="TOML file, or a recipe of xception configs ls."),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(metavar="[RUN]", help="Go on with a run; without RUN the latest."),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what would be done and what it takes, and stop.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Log the epochs for TensorBoard too.")
    ] = False,
    **flags: Any,
) -> None:
    """Train a classifier on a folder of photos."""
    from xception_cli.rundir import choose_run_path, find_run

    run = survey = None
    if resume is not None:
        own = {"--output": output is not None, "--config": config is not None, "--plan": plan}
        for name, was_given in own.items():
            if was_given:
                raise UsageError(f"{name} and --resume exclude each other: a run has its own")
        run = find_run(None if resume == _LATEST else Path(resume), finished=False)
    settings = resolve(flags, None if config is None else find_config(config))
    if run is None:
        if not settings.config.data:
            raise UsageError("which photos?", hint="xception train --data DIR")
        # Before torch is loaded: the commonest mistakes cost a tenth of a second.
        from xception_cli.check.survey import survey_data

        # An unwritable place is told before the images are read.
        choose_run_path(Path(settings.config.data), output)
        if tensorboard:  # so is a package that is missing
            from xception_cli.training.handlers import require_tensorboard

            require_tensorboard()
        survey = survey_data(settings.config)

    from xception_cli.training.run import plan_training, run_training

    if plan:
        for name, value in plan_training(settings, survey=survey, output=output).items():
            emit(f"{name:12} {value:>14}")
        say("expected on this machine; fine-tuning may stop earlier. Without --plan it is done")
        return
    result = run_training(
        settings, survey=survey, output=output, resume=run, flags=flags, tensorboard=tensorboard
    )
    emit(str(result.run.path))
    say(f"next: xception eval {quoted(result.run.path)}")


@app.command("eval")
def evaluate(
    run: Annotated[Path | None, typer.Argument(help="Run folder (default: the latest).")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Another folder of photos, with the same classes.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(metavar="val|test", help="Which split (default: test, else val).")
    ] = None,
    ignore_extra_classes: Annotated[
        bool, typer.Option(help="Leave out classes that the model does not know.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda|mps", help="Where.")] = "auto",
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that decode.")] = None,
    model: Annotated[
        Path | None, typer.Option(help="Exported .onnx file, instead of the run's model.")
    ] = None,
) -> None:
    """Measure a model on photos that it was not trained on."""
    if split not in {None, "val", "test"}:
        raise UsageError(f"split is {show(split)}, expected val or test")
    if data is not None and not os.path.isdir(data):  # noqa: PTH112 - Path's raises on odd names
        raise UsageError(f"the data folder {show(data)} does not exist", hint="check the path")
    from xception_cli.rundir import find_run

    chosen = find_run(run)

    from xception_cli.data.loading import default_workers
    from xception_cli.evaluation.evaluate import run_evaluation
    from xception_cli.evaluation.report import (
        answered_line,
        confused_line,
        contaminated_line,
        headline,
        report_table,
        scores_table,
    )
    from xception_cli.runtime import decide_runtime

    runtime = decide_runtime(device=_device(device, model))
    if run is None:
        say(f"run       {show(chosen.path)} (the latest)")
    report = run_evaluation(
        chosen,
        data=data,
        split=split,
        ignore_extra_classes=ignore_extra_classes,
        runtime=runtime,
        workers=default_workers(runtime.device) if workers is None else workers,
        model=model,
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


def _device(asked: str, model: Path | None) -> str:
    """Return the device to decide on: an exported file runs on the CPU, if there is a choice."""
    exported = model is not None and model.suffix.lower() == ".onnx"
    return "cpu" if exported and asked == "auto" else asked


@app.command()
def predict(
    paths: Annotated[
        list[str], typer.Argument(metavar="IMAGE|DIR|GLOB...", help="Photos to name.")
    ],
    run: Annotated[Path | None, typer.Option(help="Run folder (default: the latest).")] = None,
    model: Annotated[
        Path | None, typer.Option(help="Model or .onnx file, instead of a run.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Classes to print for each photo.")] = 5,
    output: Annotated[
        Path | None, typer.Option(help="Write to this .csv or .jsonl file instead.")
    ] = None,
    unknown: Annotated[
        str,
        typer.Option(
            metavar="off|auto|P",
            help="Say `unknown`: auto by the model's own thresholds, P below this probability.",
        ),
    ] = "off",
    explain: Annotated[
        Path | None,
        typer.Option(help="Draw what the answer rests on over each photo, into this folder."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda|mps", help="Where.")] = "auto",
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that decode.")] = None,
) -> None:
    """Name what is on photos."""
    from xception_cli.rundir import find_run

    if run is not None and model is not None:
        raise UsageError("--run and --model exclude each other")
    chosen = model if model is not None else find_run(run).model

    from xception_cli.data.loading import default_workers
    from xception_cli.model.bundle import ModelBundle
    from xception_cli.model.opening import open_classifier
    from xception_cli.predict import (
        check_output,
        decide_unknown,
        find_images,
        predict_images,
        write_predictions,
    )
    from xception_cli.runtime import decide_runtime

    images = find_images(paths)
    if output is not None:
        check_output(output)
    if explain is not None:
        from xception_cli.evaluation.explain import check_folder, write_explanation  # matplotlib

        check_folder(explain)
    if run is None and model is None:
        say(f"run       {show(chosen.parent)} (the latest)")
    runtime = decide_runtime(device=_device(device, chosen))
    bundle = open_classifier(chosen, runtime)
    rule = decide_unknown(bundle, unknown)
    explained = bundle if isinstance(bundle, ModelBundle) else None
    if explain is not None and explained is None:
        raise UsageError(
            f"{show(chosen)} cannot be explained: an exported file gives no activations",
            hint="--explain with --run RUN, or with the model.safetensors that it was made from",
        )
    count = default_workers(runtime.device) if workers is None else workers
    predictions = predict_images(bundle, images, top=top, unknown=rule, workers=count)
    failed = 0

    def counted() -> typing.Iterator[Any]:
        nonlocal failed
        for prediction in predictions:
            failed += prediction.error is not None
            yield prediction
            if explain is not None and explained is not None and prediction.error is None:
                label = bundle.classes.index(prediction.classes[0])
                write_explanation(explained, prediction.path, label, explain)

    if output is not None:
        write_predictions(counted(), output, with_unknown=rule is not None)
        say(f"written   {show(output)}: {len(images)} images")
    else:
        for prediction in counted():
            emit(json.dumps(prediction.to_dict()) if as_json else _prediction_line(prediction))
    if explain is not None:
        say(f"explained {show(explain)}: brighter is what the first class rests on")
    if failed:
        fail(f"{failed} of {len(images)} images could not be read", None)
        raise typer.Exit(3)


def _prediction_line(prediction: Any) -> str:
    path = show(prediction.path)
    if prediction.error is not None:
        return f"{path}: error: {show(prediction.error)}"
    pairs = zip(prediction.classes, prediction.probabilities, strict=True)
    named = ", ".join(f"{show(name)} {value:.1%}" for name, value in pairs)
    if prediction.unknown is not None:
        return f"{path}: unknown ({prediction.unknown}); nearest: {named}"
    return f"{path}: {named}"


@app.command()
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
    """Compare runs on the same images: who is right where, and could it be chance."""
    from xception_cli.rundir import find_run

    if len(runs) < 2:
        raise UsageError("one run has nothing to be compared with", hint="xception compare A B")
    first, *others = [find_run(run) for run in runs]

    from xception_cli.evaluation.compare import (
        choose_evaluation,
        compare_runs,
        comparison_tables,
        verdict,
    )

    name = choose_evaluation([first, *others], on)
    for other in others:
        comparison = compare_runs(first, other, name)
        parts: list[Any] = [json.dumps(comparison.to_dict())]
        if not as_json:
            parts = [part for table in comparison_tables(comparison) for part in (table, "")][:-1]
        for part in parts:
            emit(part)
        if comparison.unmatched:
            say(f"note      {comparison.unmatched} images of {name} were scored by one run only")
        say(f"result    {show(other.path)}: {verdict(comparison)}", style="bold")


@app.command()
def report(
    run: Annotated[Path | None, typer.Argument(help="Run folder (default: the latest).")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Where the run's photos are now, if they moved.")
    ] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda|mps", help="Where.")] = "auto",
) -> None:
    """Draw a run's report.html again."""
    from xception_cli.rundir import find_run, read_json

    chosen = find_run(run)
    result = read_json(chosen.result)

    from xception_cli.evaluation.page import write_report
    from xception_cli.model.bundle import load_model
    from xception_cli.runtime import decide_runtime

    bundle = load_model(chosen.model, decide_runtime(device=device))
    write_report(chosen, bundle, data or Path(chosen.read_info()["data"]), result)
    emit(str(chosen.report))
    say("next: open it in a browser")


@app.command("runs")
def list_runs(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of run folders.")] = Path(
        "runs"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON per run.")] = False,
) -> None:
    """List runs with their key figures, the latest first."""
    from xception_cli.evaluation import runs

    found = runs.list_runs(folder)
    for part in (
        [json.dumps(run.to_dict()) for run in found] if as_json else [runs.runs_table(found)]
    ):
        emit(part)
    say("next: xception compare RUN_A RUN_B")


@app.command()
def check(
    data: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of photos.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
    output: Annotated[
        Path | None, typer.Option(help="Write issues.csv and a page with pictures there.")
    ] = None,
    strict: Annotated[bool, typer.Option(help="Exit with 3 for warnings too.")] = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Ask the pretrained network which labels are in doubt.")
    ] = False,
    curve: Annotated[
        bool, typer.Option("--curve", help="Measure whether more photos would help; does --deep.")
    ] = False,
    weights: Annotated[
        str, typer.Option(help="Of that network: imagenet or a file.")
    ] = TrainConfig.weights,
) -> None:
    """Look for what is wrong with a folder of photos. Nothing is changed there."""
    from xception_cli.data.folder import read_folder

    folder = read_folder(data)  # before anything heavy is loaded

    from xception_cli.check.page import ISSUES, PAGE, check_output, write_check
    from xception_cli.check.run import run_check
    from xception_cli.check.text import next_command, report_text

    if output is not None:
        check_output(data, output)
    report = run_check(folder, deep=deep, curve=curve, weights=weights)
    if output is not None:
        write_check(report, output)
        say(f"files     {show(output / ISSUES)}, {show(output / PAGE)}")
    emit(json.dumps(report.to_dict()) if as_json else report_text(report))
    say(f"next: {next_command(report, written=output is not None)}")
    if code := report.exit_code(strict=strict):
        raise typer.Exit(code)


@app.command()
def sample(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    classes: Annotated[int, typer.Option(help="Kinds of food, 2 to 12.")] = 12,
    images: Annotated[int, typer.Option(help="Pictures of each.")] = 40,
) -> None:
    """Draw a small data set of 12 foods, to try everything with."""
    from xception_cli.data.sample import draw_sample

    count = draw_sample(folder, classes=classes, images=images)
    say(f"drawn     {count} pictures of {classes} foods in {show(folder)}")
    say(f"next: xception train --data {quoted(folder)} --classes {classes}")


@app.command()
def summary(
    run: Annotated[
        Path | None, typer.Argument(help="Run folder: tells what of it is frozen, too.")
    ] = None,
    classes: Annotated[
        int | None, typer.Option(help="Classes of the head (default: the run's, else 1000).")
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Side of the pictures (default: the run's, else 299).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
    svg: Annotated[
        Path | None, typer.Option(help="Draw the block diagram into this new .svg file instead.")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Tell why separable convolutions are cheap instead.")
    ] = False,
) -> None:
    """Show the network layer by layer: shapes, parameters, multiplications."""
    from xception_cli.rundir import find_run, read_json

    if explain and (run, classes, size, svg) != (None, None, None, None):
        raise UsageError(
            "--explain stands alone, or with --json", hint="xception summary --explain"
        )
    if run is not None and classes is not None:
        raise UsageError("a run has its own classes", hint="leave RUN or --classes out")
    chosen = None if run is None else find_run(run, finished=False)
    # Their ranges are those of the settings.
    config = TrainConfig(
        classes=classes, image_size=TrainConfig.image_size if size is None else size
    )
    if svg is not None:
        _check_new_svg(svg)

    from xception_cli.model import diagram, explanation, summary_table
    from xception_cli.model.summary import IMAGENET_CLASSES, summarize_network, summarize_run

    if explain:
        explained = explanation.explain()
        parts = explanation.explanation_parts(explained)
        for part in [json.dumps(explained.to_dict())] if as_json else parts:
            emit(part)
        say("next: xception summary --svg xception.svg")
        return
    if chosen is not None:
        network = summarize_run(chosen, size=size)
        kept = read_json(chosen.result).get("kept", "?") if chosen.is_finished else "nothing yet"
        say(f"run       {show(chosen.path)}: unfreeze = {network.unfreeze}, kept {show(kept)}")
    else:
        network = summarize_network(classes or IMAGENET_CLASSES, size=config.image_size)
    if as_json:
        emit(json.dumps(network.to_dict()))
    if svg is not None:
        write_durably(svg, diagram.draw_diagram(network).encode())
        say(f"drawn     {show(svg)}: open it in a browser")
    elif not as_json:
        emit(summary_table.LayerTable(network))
        emit("")
        emit(summary_table.total_table(network))
        say(f"counted   {summary_table.COUNTED}")
    say("next: xception summary --explain")


def _check_new_svg(path: Path) -> None:
    if path.suffix.lower() != ".svg":
        raise UsageError(f"cannot draw into {show(path)}: it must end in .svg")
    if os.path.lexists(path):
        raise UsageError(f"{show(path)} already exists", hint="remove it, or choose another name")
    if not path.parent.is_dir():
        raise UsageError(f"the folder {show(path.parent)} does not exist", hint="make it")


@app.command()
def export(
    output: Annotated[Path, typer.Option(help="A new .onnx file.")],
    run: Annotated[Path | None, typer.Argument(help="Run folder (default: the latest).")] = None,
    wanted: Annotated[
        str,
        typer.Option(
            "--input",
            metavar="whole|cropped",
            help="Pictures of any size, or resized and cut already.",
        ),
    ] = "whole",
    quantize: Annotated[
        str,
        typer.Option(
            metavar="none|int8", help="8-bit integers: a smaller, faster, less exact file."
        ),
    ] = "none",
) -> None:
    """Write a model as one ONNX file that holds everything, and print a program that uses it."""
    if wanted not in {"whole", "cropped"}:
        raise UsageError(f"input is {show(wanted)}, expected whole or cropped")
    if quantize not in {"none", "int8"}:
        raise UsageError(f"quantize is {show(quantize)}, expected none or int8")
    from xception_cli.rundir import find_run

    chosen = find_run(run)

    from xception_cli.model.opening import require_onnx

    require_onnx()

    from xception_cli.export.run import check_export_output, export_run

    check_export_output(output)
    if run is None:
        say(f"run       {show(chosen.path)} (the latest)")
    result = export_run(chosen, output, cropped=wanted == "cropped", quantized=quantize == "int8")
    say(f"written   {show(output)}: {output.stat().st_size / 1e6:.1f} MB")
    say(f"files     {show(result.report)}")
    emit(result.snippet.rstrip())
    say(f"next: xception predict PHOTO.jpg --model {quoted(output)}")


@weights_app.command("list")
def weights_list() -> None:
    """List where the ImageNet weights can come from, in the order they are tried."""
    from xception_cli.model.weights import cache_path, list_sources

    emit(f"1. the cache\n   where     {show(cache_path())}")
    for number, source in enumerate(list_sources(), start=2):
        emit(
            f"{number}. {source.name}\n   where     {source.origin}\n"
            f"   accepted  {source.pinned}\n   licence   {source.licence}"
        )


@weights_app.command("fetch")
def weights_fetch() -> None:
    """Get the ImageNet weights into the cache."""
    from xception_cli.model.weights import fetch

    emit(str(fetch()))


@weights_app.command("verify")
def weights_verify() -> None:
    """See that the cached weights are the ones we know."""
    from xception_cli.model.weights import verify

    emit(str(verify()))


@configs_app.command("ls")
def configs_ls() -> None:
    """List the shipped recipes."""
    for name, path in list_recipes().items():
        emit(f"{name:12} {title(path)}")
    say("next: xception train --data DIR --config NAME")


@configs_app.command("show")
def configs_show(name: Annotated[str, typer.Argument(help="Of the recipe.")]) -> None:
    """Print a recipe."""
    emit(find_recipe(name).read_text(encoding="utf-8").rstrip())


@configs_app.command("cp")
def configs_cp(
    name: Annotated[str, typer.Argument(help="Of the recipe.")],
    to: Annotated[Path, typer.Argument(metavar="FILE|DIR", help="Where to.")] = Path(),
) -> None:
    """Copy a recipe, to change it."""
    copied = copy_recipe(name, to)
    emit(str(copied))
    say(f"next: xception train --data DIR --config {quoted(copied)}")


@app.command()
def env() -> None:
    """Print versions and devices, to paste into a bug report."""
    from xception_cli.runtime import describe_environment

    for name, value in describe_environment().items():
        emit(f"{name:15} {value}")


def _expand_bare_resume(arguments: Sequence[str]) -> list[str]:
    """Let `--resume` stand without a value, which Typer's options cannot."""
    expanded = []
    for position, argument in enumerate(arguments):
        following = arguments[position + 1 : position + 2]
        bare = argument == "--resume" and (not following or following[0].startswith("-"))
        expanded.append(f"--resume={_LATEST}" if bare else argument)
    return expanded


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, and end the process with its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    screen.log_to(None)
    try:
        app(_expand_bare_resume(given), prog_name="xception")
    except XceptionError as error:
        if debug:
            traceback.print_exc()
        fail(error.message, error.hint)
        sys.exit(error.exit_code)
    except OSError as error:
        if debug:
            raise
        fail(f"{show(error)}", "xception --debug shows where")
        sys.exit(MachineError.exit_code)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which need not be loaded here
            raise
        fail(
            f"the device's memory is too small: {show(error)}",
            "--accumulate 2, a smaller --batch-size, or --unfreeze exit; or --device cpu",
        )
        sys.exit(MachineError.exit_code)
    except KeyboardInterrupt:
        fail("stopped", None)
        sys.exit(130)
