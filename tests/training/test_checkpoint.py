"""Training states: after any failure, a committed state exists and is valid."""

import json
import os
import pickle
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from ignite.metrics import Average
from networks import lively_network
from runs import files_no_larger_than
from torch.optim.swa_utils import AveragedModel

from xception_cli.errors import ArtifactError, DivergedError, MachineError
from xception_cli.model.network import Segment
from xception_cli.model.seal import seal_entries
from xception_cli.training import checkpoint
from xception_cli.training.checkpoint import StateStore

FOLDER = Path("checkpoints")


@pytest.fixture
def store():
    return StateStore(FOLDER)


def a_state(number: int) -> dict[str, object]:
    weights = torch.full((100,), float(number))
    return {"trained": {"conv1.weight": weights}}


def notes(phase: str = "train") -> dict[str, object]:
    return {"phase": phase, "history": {"best_epoch": 1, "best_loss": None}, "max_epochs": 9}


def save(store: StateStore, number: int, phase: str = "train") -> None:
    store.save(a_state(number), iteration=number, notes=notes(phase))


def files() -> list[str]:
    return sorted(path.name for path in FOLDER.iterdir())


def iteration_of(store: StateStore) -> int | None:
    """Load, check that the tensor is that of the iteration, and return it."""
    state = store.load()
    if state is None:
        return None
    assert (state["trained"]["conv1.weight"] == state["iteration"]).all()
    return state["iteration"]


# Saving


def test_a_state_is_loaded_with_its_place_without_running_code(store):
    head = Segment(lively_network(), "head", "head")
    optimizer = torch.optim.AdamW([{"params": list(head.parameters()), "name": "head"}], lr=0.01)
    head(torch.rand(2, 2048)).sum().backward()
    optimizer.step()
    ema, average = AveragedModel(head, use_buffers=True), Average()
    ema.update_parameters(head)
    average.update(torch.tensor(2.5))
    state = {
        "trained": head.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": torch.amp.GradScaler("cpu", enabled=True).state_dict(),
        "ema": ema.state_dict(),
        "train_loss": average.state_dict(),
        "epoch_length": 7,
    }
    store.save(state, iteration=12, notes=notes("eval_pending"))
    assert files() == ["state-00000012.json", "state-00000012.pt"]
    direct = torch.load(FOLDER / "state-00000012.pt", weights_only=True)
    assert set(direct) == {*state, "schema"}
    stored = store.load()
    assert {name: stored.pop(name) for name in ("iteration", *notes())} == {
        "iteration": 12,
        **notes("eval_pending"),
    }
    for loaded in (stored, direct):
        assert set(loaded) == {*state, "schema"}
        assert loaded["schema"] == 2
        torch.testing.assert_close(
            [loaded["trained"], loaded["optimizer"]["state"], loaded["ema"]],
            [state["trained"], state["optimizer"]["state"], state["ema"]],
            rtol=0,
            atol=0,
        )
        assert loaded["optimizer"]["param_groups"] == state["optimizer"]["param_groups"]
        restored = Average()
        restored.load_state_dict(loaded["train_loss"])
        assert restored.compute() == 2.5


def test_the_manifest_has_the_checksum_of_the_state_file(store):
    save(store, 3)
    content = (FOLDER / "state-00000003.pt").read_bytes()
    manifest = json.loads((FOLDER / "state-00000003.json").read_text())
    assert seal_entries({n: v for n, v in manifest.items() if n != "digest"}) == manifest
    del manifest["digest"]
    assert manifest == {
        "schema": 2,
        "iteration": 3,
        **notes(),
        "bytes": len(content),
        "sha256": sha256(content).hexdigest(),
    }


def test_a_run_without_a_state_loads_none(store):
    assert store.load() is None
    store.keep(1)
    assert not FOLDER.exists()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_state_that_is_not_finite_is_named_and_not_written(store, bad):
    save(store, 1)
    before = {name: (FOLDER / name).read_bytes() for name in files()}
    state = {"optimizer": {"state": {3: {"exp_avg": torch.tensor([0.0, bad])}}, "groups": [1]}}
    with pytest.raises(DivergedError, match="optimizer: state: 3: exp_avg is not finite at iter"):
        store.save(state, iteration=2, notes=notes())
    assert {name: (FOLDER / name).read_bytes() for name in files()} == before
    with pytest.raises(DivergedError, match="groups: 1 is not finite"):
        store.save({"groups": [0, torch.tensor(bad)]}, iteration=2, notes=notes())


# The order of a save


@pytest.mark.parametrize("step", ["write_durably", "write_json", "keep"])
def test_a_save_interrupted_at_any_step_leaves_a_loadable_state(store, monkeypatch, step):
    save(store, 1)
    save(store, 2)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    owner = StateStore if step == "keep" else checkpoint
    with monkeypatch.context() as patch:
        patch.setattr(owner, step, crash)
        with pytest.raises(KeyboardInterrupt):
            save(store, 3)
    old = [f"state-0000000{n}.{kind}" for n in (1, 2) for kind in ("json", "pt")]
    new = {
        "write_durably": [],  # first the state file,
        "write_json": ["state-00000003.pt"],  # then its manifest,
        "keep": ["state-00000003.json", "state-00000003.pt"],  # and only then old ones go
    }[step]
    assert files() == [*old, *new]
    assert iteration_of(store) == (3 if step == "keep" else 2)
    save(store, 4)
    kept = (3, 4) if step == "keep" else (2, 4)
    assert files() == [f"state-0000000{n}.{kind}" for n in kept for kind in ("json", "pt")]


def test_the_two_newest_states_are_kept_and_one_after_the_end(store):
    for number in (1, 2, 3, 10):
        save(store, number)
    assert files() == [f"state-000000{n}.{kind}" for n in ("03", "10") for kind in ("json", "pt")]
    store.keep(1)
    assert files() == ["state-00000010.json", "state-00000010.pt"]
    assert iteration_of(store) == 10


def test_uncommitted_files_are_ignored_and_removed_at_the_next_save(store):
    save(store, 1)
    for name in ("state-00000009.pt", "state-00000008.json", "state-00000009.pt.77.partial"):
        (FOLDER / name).write_bytes(b"half")
    (FOLDER / "state-00000001.json.77.partial").write_bytes(b"half")
    (FOLDER / "notes.json").write_text("not ours")
    assert iteration_of(store) == 1
    save(store, 2)
    assert files() == [
        "notes.json",
        *(f"state-0000000{n}.{kind}" for n in (1, 2) for kind in ("json", "pt")),
    ]


def test_a_state_of_the_same_iteration_is_replaced(store):
    save(store, 5, "eval_pending")
    save(store, 5, "train")
    assert files() == ["state-00000005.json", "state-00000005.pt"]
    assert store.load()["phase"] == "train"


def test_results_of_validation_are_added_without_writing_the_tensors_again(store):
    save(store, 5, "eval_pending")
    content = (FOLDER / "state-00000005.pt").read_bytes()
    written = (FOLDER / "state-00000005.pt").stat().st_mtime_ns
    store.note(5, notes() | {"history": {"best_epoch": 2}})
    assert (FOLDER / "state-00000005.pt").stat().st_mtime_ns == written
    loaded = store.load()
    assert (loaded["phase"], loaded["history"], loaded["max_epochs"]) == (
        "train",
        {"best_epoch": 2},
        9,
    )
    manifest = json.loads((FOLDER / "state-00000005.json").read_text())
    assert manifest["sha256"] == sha256(content).hexdigest()


def test_a_state_of_the_previous_format_still_loads(store):
    save(store, 7)
    path = FOLDER / "state-00000007.pt"
    old = a_state(7) | {"schema": 1, "iteration": 7, "phase": "train", "max_epochs": 3}
    torch.save(old | {"history": {"best_loss": float("inf")}}, path)
    content = path.read_bytes()
    manifest = {"schema": 1, "iteration": 7, "phase": "train", "bytes": len(content)}
    manifest["sha256"] = sha256(content).hexdigest()
    path.with_suffix(".json").write_text(json.dumps(manifest))
    loaded = store.load()
    assert (loaded["history"], loaded["max_epochs"]) == ({"best_loss": float("inf")}, 3)
    assert iteration_of(store) == 7


# Full disks


@pytest.mark.parametrize("number", [4, 5])  # another iteration, or the same once more
def test_a_full_disk_leaves_the_earlier_state_usable(store, number):
    save(store, 4, "eval_pending")
    before = {name: (FOLDER / name).read_bytes() for name in files()}
    message = r"cannot write checkpoints/state-0000000\d\.pt"
    with files_no_larger_than(1000), pytest.raises(MachineError, match=message):
        save(store, number)
    assert {name: (FOLDER / name).read_bytes() for name in files()} == before
    assert iteration_of(store) == 4
    assert store.load()["phase"] == "eval_pending"


def test_a_missing_run_folder_is_reported_and_not_created_again():
    with pytest.raises(MachineError, match="cannot make the folder gone/checkpoints"):
        save(StateStore(Path("gone/checkpoints")), 1)
    assert list(Path().iterdir()) == []


# Damage


def damage(name: str, how: str) -> None:
    path = FOLDER / name
    content = bytearray(path.read_bytes())
    if how == "flipped bit":
        content[len(content) // 2] ^= 1
    elif how == "truncated":
        del content[-100:]
    elif how == "empty":
        content.clear()
    else:
        content[:] = bytes(len(content))
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["flipped bit", "truncated", "empty", "zeros"])
@pytest.mark.parametrize("kind", ["pt", "json"])
def test_a_damaged_state_is_replaced_by_the_one_before_or_is_an_error(store, capsys, how, kind):
    save(store, 1)
    save(store, 2)
    assert iteration_of(store) == 2
    assert capsys.readouterr().err == ""
    damage(f"state-00000002.{kind}", "empty" if kind == "json" else how)
    assert iteration_of(store) == 1
    said = capsys.readouterr().err
    assert said.startswith("warning   ")
    assert "state-00000002" in said
    assert "looking for an older state" in said
    damage(f"state-00000001.{kind}", "empty" if kind == "json" else how)
    with pytest.raises(ArtifactError, match="no training state in checkpoints is intact"):
        store.load()


@pytest.mark.parametrize("later", [3, 5, 7, None])
def test_a_damaged_state_is_not_the_newest_after_training_has_continued_before_it(store, later):
    save(store, 2)
    save(store, 5)
    damage("state-00000005.pt", "flipped bit")
    for _ in range(2):  # nothing was saved in between: it may still be restored from a copy
        again = StateStore(FOLDER)
        assert iteration_of(again) == 2
        assert "state-00000005.pt" in files()
    if later is not None:
        save(again, later)
        assert {int(name[6:14]) for name in files()} == {2, later}
    again.keep(1)  # the training ended
    assert iteration_of(StateStore(FOLDER)) == (later or 2)


def test_a_newer_format_is_refused_instead_of_using_an_older_state(store):
    save(store, 1)
    save(store, 2)
    path = FOLDER / "state-00000002.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 3}))
    with pytest.raises(ArtifactError, match="has format 3, this version reads 2") as caught:
        store.load()
    assert "upgrade xception" in caught.value.hint


class Evil:
    """Content of a malicious run folder."""

    def __reduce__(self):
        return os.mkdir, ("owned",)


def test_code_in_a_state_is_not_run_even_if_its_checksum_is_right(store):
    save(store, 1)
    path = FOLDER / "state-00000001.pt"
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            is_pickle = name.endswith("data.pkl")
            archive.writestr(name, pickle.dumps(Evil()) if is_pickle else content)
    manifest = json.loads(path.with_suffix(".json").read_text())
    manifest["sha256"] = sha256(path.read_bytes()).hexdigest()
    del manifest["digest"]
    path.with_suffix(".json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="no training state"):
        store.load()
    assert not Path("owned").exists()
    torch.load(path, weights_only=False)  # the control: an unsafe load runs it
    assert Path("owned").exists()
