"""Damaged files of a run: users get a sentence and never a traceback.

`XCEPTION_FUZZ=5000` tries more than the usual number of each kind.
"""

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from fuzzing import Tally, peak
from images import COLOURS
from images import draw as draw_photo
from mutations import damage_bytes, damage_cells, damage_json
from runs import call, copy_run
from splits import inspected_folder

from xception_cli.config import TrainConfig
from xception_cli.data.fixes import read_fixes
from xception_cli.data.folder import read_folder
from xception_cli.data.recorded import read_recorded
from xception_cli.data.split import make_split
from xception_cli.errors import XceptionError
from xception_cli.evaluation.candidates import read_candidates
from xception_cli.evaluation.correction import correct_report
from xception_cli.evaluation.described import headline, report_table, scores_table
from xception_cli.evaluation.eval_report import read_report
from xception_cli.evaluation.places import recorded_places
from xception_cli.evaluation.scored import read_scored
from xception_cli.model.bundle import load_model
from xception_cli.report.check_page import add_issues
from xception_cli.run_figures import list_runs
from xception_cli.rundir import RunDir
from xception_cli.runtime import Runtime
from xception_cli.settings import read_config, read_settings
from xception_cli.toml_files import read_toml
from xception_cli.training.checkpoint import StateStore
from xception_cli.training.history import History
from xception_cli.training.result import read_result

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("XCEPTION_FUZZ", "300"))
SEED = int(os.environ.get("XCEPTION_SEED", "0"))
CPU = Runtime(torch.device("cpu"), "fp32")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tuned_once: Path) -> Iterator[RunDir]:
    """A finished, fine-tuned run in the folder `runs` next to its `photos`."""
    root = tmp_path_factory.mktemp("faults")
    (root / "runs").mkdir()
    copy_run(tuned_once, root).path.rename(root / "runs" / "run")
    yield RunDir(root / "runs" / "run")
    shutil.rmtree(root)


@contextmanager
def kept(path: Path) -> Iterator[bytes]:
    content = path.read_bytes()
    try:
        yield content
    finally:
        path.write_bytes(content)


def photos_of(run: RunDir) -> Path:
    return run.path.parents[1] / "photos"


def read_everything_of_info(run: RunDir) -> None:
    list_runs(run.path.parent)
    settings = read_settings(run)
    TrainConfig(**settings)
    recorded_places(run)
    read_config(run)
    read_recorded(run, run.read_info().classes)


def read_the_evaluation(run: RunDir) -> None:
    report = read_report(run, "val")
    headline(report)
    report_table(report)
    scores_table(report)
    report.to_dict()
    scored = read_scored(run, "val")
    correct_report(run, report, scored)


def follow_the_split(run: RunDir) -> None:
    folder = inspected_folder(photos_of(run))
    make_split(folder, seed=0, val_fraction=0.2, test_fraction=0, split_file=run.split)


def load_the_state(run: RunDir) -> None:
    History.of_state(StateStore(run.checkpoints).load(), 5)


def read_its_split(run: RunDir) -> None:
    read_recorded(run, run.read_info().classes)


def read_a_given_config(run: RunDir) -> None:
    TrainConfig(**read_toml(run.config))


def follow_the_fixes(run: RunDir) -> None:
    read_fixes(run.issues, read_folder(photos_of(run)))


def add_to_the_issues(run: RunDir) -> None:
    add_issues(run.issues, "x", [])


def read_the_candidates(run: RunDir) -> None:
    read_candidates(run.candidates, len(read_scored(run, "val").photos))


READERS: dict[str, list[tuple[Callable[[RunDir], object], Callable[..., bytes]]]] = {
    "run.json": [
        (read_everything_of_info, damage_json),
        (read_everything_of_info, damage_bytes),
    ],
    "result.json": [(read_result, damage_json), (read_result, damage_bytes)],
    "eval/val/metrics.json": [
        (read_the_evaluation, damage_json),
        (read_the_evaluation, damage_bytes),
    ],
    "eval/val/predictions.csv": [
        (read_the_evaluation, damage_cells),
        (read_the_evaluation, damage_bytes),
    ],
    "metrics.jsonl": [(RunDir.read_metrics, damage_bytes)],
    "config.toml": [(read_config, damage_bytes), (read_a_given_config, damage_bytes)],
    "split.csv": [
        (read_its_split, damage_cells),
        (read_its_split, damage_bytes),
        (follow_the_split, damage_cells),
        (follow_the_split, damage_bytes),
    ],
    "issues.csv": [
        (follow_the_fixes, damage_cells),
        (follow_the_fixes, damage_bytes),
        (add_to_the_issues, damage_cells),
    ],
    "candidates.safetensors": [(read_the_candidates, damage_bytes)],
    "checkpoints/state-*.json": [(load_the_state, damage_json), (load_the_state, damage_bytes)],
}
CASES = [(name, *case) for name, cases in READERS.items() for case in cases]


@pytest.mark.parametrize(
    ("name", "read", "damage"),
    CASES,
    ids=[f"{name}, {read.__name__}, {damage.__name__}" for name, read, damage in CASES],
)
def test_a_damaged_file_is_refused_in_a_sentence_or_read(
    run: RunDir,
    name: str,
    read: Callable[[RunDir], object],
    damage: Callable[[bytes, random.Random], bytes],
) -> None:
    path, kind = max(run.path.glob(name)), f"{name} ({read.__name__}, {damage.__name__})"
    tally, before = Tally(), peak()
    with kept(path) as content:
        for seed in range(ROUNDS):
            path.write_bytes(damage(content, random.Random(f"{kind} {SEED} {seed}")))
            tally.try_one(seed, lambda: read(run))
    tally.memory = peak() - before
    print(tally.line(kind))
    assert tally.is_sound(), tally
    assert tally.codes.keys() <= {0, 2, 3, 4}
    assert len(tally.codes) > 1  # the control: some were refused
    read(run)


def code_of(read: Callable[[RunDir], object], run: RunDir) -> int:
    """Return the exit code of reading a file; unexpected exceptions are not caught."""
    try:
        read(run)
    except XceptionError as error:
        return error.exit_code
    return 0


def load(run: RunDir) -> None:
    load_model(run.model, CPU)


def test_a_damaged_model_file_is_refused_or_gives_the_same_answers(run: RunDir) -> None:
    draw, refused = random.Random(1), []
    before = load_model(run.model, CPU)
    weights = before.network.state_dict()
    with kept(run.model) as content:
        header = 8 + int.from_bytes(content[:8], "little")
        for number in range(max(20, ROUNDS // 10)):
            damaged = bytearray(content)
            at = draw.randrange(header if number % 2 else len(content))
            damaged[at] ^= 1 << draw.randrange(8)
            run.model.write_bytes(damaged)
            if code := code_of(load, run):
                refused.append(code)
                continue
            found = load_model(run.model, CPU)
            assert found.about == before.about
            for name, tensor in found.network.state_dict().items():
                assert torch.equal(tensor, weights[name])
    print("model", len(refused))
    assert set(refused) == {4}


@pytest.mark.parametrize(
    "command", ["report", "eval", "runs", "compare", "summary"], ids=lambda c: f"xception {c}"
)
def test_no_command_ends_in_a_traceback_with_damaged_files(
    run: RunDir, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {
        "report": ["report", str(run.path)],
        "eval": ["eval", str(run.path), "--workers", "0", "--data", "new"],
        "runs": ["runs", str(run.path.parent)],
        "compare": ["compare", str(run.path), str(run.path)],
        "summary": ["summary", str(run.path)],
    }[command]
    for name in ("red", "blue"):
        for seed in range(2):
            draw_photo(Path("new") / name / f"{seed}.jpg", COLOURS[name], seed=900 + seed)
    draw, codes = random.Random(command), Counter[int]()
    files = sorted({max(run.path.glob(name)) for name in READERS} | {run.model})
    damages = [damage_bytes, damage_bytes, damage_json, damage_cells]
    for _ in range(max(10, ROUNDS // 20)):
        path = draw.choice(files)
        damage = (
            damage_json if path.suffix == ".json" and draw.random() < 0.7 else draw.choice(damages)
        )
        with kept(path) as content:
            try:
                damaged = damage(content, draw)
            except ValueError:  # not of that kind
                damaged = damage_bytes(content, draw)
            path.write_bytes(damaged)
            code = call(*given)
            err = capsys.readouterr().err
            assert code in {0, 2, 3, 4}, f"{path.name}: {code}\n{err}"
            assert "Traceback" not in err
            codes[code] += 1
    print(command, dict(codes))
