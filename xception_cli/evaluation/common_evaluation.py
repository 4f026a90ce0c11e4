"""The evaluation that runs have in common, to compare them on, and how to get one."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from xception_cli.console import quoted, say, show, typed
from xception_cli.data.recorded import read_split
from xception_cli.errors import ArtifactError, UsageError
from xception_cli.evaluation.eval_report import read_report
from xception_cli.evaluation.scored import Scored, read_scored
from xception_cli.evaluation.selection import HELD_OUT
from xception_cli.rundir import RunDir
from xception_cli.settings import read_settings


def choose_evaluation(runs: Sequence[RunDir], name: str | None) -> str:
    """Return the evaluation to compare runs on: the one named, else test, else val.

    In the runs after the first, its number may be another, see `read_comparable`.

    Raises:
        UsageError: A run has no such evaluation.
    """
    first, *others = runs
    for candidate in [name.rstrip("/")] if name else HELD_OUT:
        lacking = [first] * (not first.evaluation(candidate).is_dir())
        lacking += [run for run in others if not _namesakes(run, candidate)]
        if not lacking:
            return candidate
    raise _lacks(lacking[0], runs, candidate)


def _lacks(run: RunDir, runs: Iterable[RunDir], name: str) -> UsageError:
    wanted = f"--split {name}" if name in HELD_OUT else f"--data {_evaluated_folder(runs, name)}"
    return UsageError(
        f"{show(run.path)} has no evaluation called {show(name)}",
        hint=f"xception eval {quoted(run.path)} {wanted}",
    )


def read_comparable(run: RunDir, name: str, first: RunDir, scored: Scored) -> Scored:
    """Read a run's evaluation of the images that the first run evaluated under a name.

    Folders of the same name are `food`, `food-2` and so on, in the order of their evaluation; but
    `2026-01` and `2026-02` may be of any folders. So under another name, it must have most images.

    Raises:
        UsageError: The run has no evaluation of that name, or of most of these images.
        ArtifactError: A file of an evaluation is missing or damaged.
    """
    digests = {photo.digest for photo in scored.photos}
    own: Scored | None = None
    for namesake in _namesakes(run, name) or [name]:
        found = read_scored(run, namesake)
        common = digests.intersection(photo.digest for photo in found.photos)
        if namesake == name:
            own = found
            if common:
                return found
        elif 2 * len(common) >= len(digests):
            which = f"{show(namesake)} of {show(run.path)}"
            say(f"note      {which} is compared: it has the images of {show(name)}")
            return found
    if own is None:
        raise _lacks(run, [first], name)
    return own


def _namesakes(run: RunDir, name: str) -> list[str]:
    """Return the evaluations of a run that may be of one folder, that of the given name first."""
    if name in HELD_OUT:
        return [name] * run.evaluation(name).is_dir()
    alike = re.compile(rf"{re.escape(re.sub(r'-[0-9]+$', '', name))}(-[0-9]+)?")
    folders = run.evaluation(name).parent.glob("*")
    found = [path.name for path in folders if alike.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=lambda namesake: (namesake != name, namesake))


def _evaluated_folder(runs: Iterable[RunDir], name: str) -> str:
    """Return the folder of an evaluation that one of the runs has, as typed; else `DIR`."""
    for run in runs:
        if run.evaluation(name).is_dir():
            data = read_report(run, name).data
            # Of an absolute path only the name is recorded.
            return quoted(data) if Path(data).exists() else f"DIR, with the folder {show(data)}"
    return "DIR"


def different_splits(first: RunDir, second: RunDir) -> tuple[str, str, str]:
    """Explain why the val or test of two runs have different images, and how to compare the runs.

    Returns:
        The reason; the command that trains on the split of the first run, with `--from` if the runs
        do not have the same images under the same paths, which a split file must list, and empty if
        they have none in common; and the commands that evaluate both on other images.
    """
    before, after = _settings(first), _settings(second)
    own, others = _images(first), _images(second)
    reason = "these runs have different splits"
    if before.get("seed") != after.get("seed"):
        reason += " (--seed determines the split)"
    data, seed = after.get("data", ""), after.get("seed")
    is_there = os.path.exists(data)  # noqa: PTH110 - Path's may raise an error
    where = quoted(typed(Path(data))) if is_there else "DIR"
    one, other = quoted(first.path), quoted(second.path)
    train = f"xception train {where} --split-file {quoted(first.split)}"
    if seed is not None:
        train += f" --seed {seed}"
    if own is not None and others is not None and own != others:
        digests, digests_of_others = {*own.values()}, {*others.values()}
        if digests != digests_of_others:
            reason = "these runs have different images"
        common = digests & digests_of_others
        train = f"xception train {where} --from {one}" if common else ""
    evaluate = " && ".join(f"xception eval {run} --data DIR" for run in (one, other))
    return (
        reason,
        train,
        f"{evaluate} && xception compare {one} {other} --on NAME",
    )


def _settings(run: RunDir) -> dict[str, Any]:
    try:
        return read_settings(run)
    except ArtifactError:  # comparing does not need them
        return {}


def _images(run: RunDir) -> dict[str, str] | None:
    """Return the digests in split.csv, by path; None if it cannot be read: it is not needed."""
    try:
        images = read_split(run.split, run.read_info().classes).images
        return {image.path: image.digest for image in images}
    except ArtifactError:
        return None
