"""The estimate of a training: measured, reported, and without an effect on the training."""

import random
import time
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import CPU
from runs import train_run
from safetensors.torch import load_file

from xception_cli.config import TrainConfig
from xception_cli.errors import UsageError
from xception_cli.model.network import Segment
from xception_cli.runtime import Runtime
from xception_cli.training import estimate, preparation
from xception_cli.training.costs import Costs, Images, disk_bytes, expected_seconds
from xception_cli.training.estimate import forecast, measure_costs, measure_draft
from xception_cli.training.job import Draft, Job
from xception_cli.training.preparation import draft_job

NOTHING = Costs(0.0, 0.0, 0.0, 0.0, 0)


def drafted(settings: dict[str, Any], **changes: Any) -> Draft:
    return draft_job(TrainConfig(**settings | changes), None, CPU, None)


@pytest.fixture
def draft(settings: dict[str, Any]) -> Draft:
    return drafted(settings)


@pytest.fixture
def job(draft: Draft) -> Job:
    return draft.job


def random_states() -> list[Any]:
    return [
        torch.get_rng_state().tolist(),
        random.getstate(),
        [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()],
    ]


def state_of(network: torch.nn.Module) -> list[Any]:
    return [
        {name: tensor.clone().numpy().tobytes() for name, tensor in network.state_dict().items()},
        [(p.requires_grad, p.grad) for p in network.parameters()],
        [(part.training, type(part)) for part in network.modules()],
    ]


# Measuring


@pytest.mark.parametrize("unfreeze", ["head", "exit", "all"])
def test_measuring_uses_no_random_number_and_changes_no_weight(job, unfreeze):
    numbers, network = random_states(), state_of(job.network)
    costs = measure_costs(job, unfreeze)
    assert random_states() == numbers
    assert state_of(job.network) == network
    assert min(costs.decode, costs.features) > 0
    assert (costs.step > 0, costs.validation > 0) == (unfreeze != "head",) * 2
    assert max(astuple(costs)[:4]) < 30  # seconds for an image
    assert costs.memory > 100e6  # torch alone uses that much
    assert not Path("runs").exists()


def test_on_a_gpu_only_the_batch_sizes_of_training_are_measured(settings, monkeypatch):
    """For each batch size, cuDNN prepares its kernels, which takes seconds."""

    class Asynchronous(Runtime):
        is_asynchronous = True

    job = drafted(settings, val_fraction=0.5).job
    job = replace(job, runtime=Asynchronous(CPU.device, "fp32"))
    assert len(job.split.of("train")) < job.runtime.inference_batch
    seen, step = set(), Segment.step

    def record(segment: Segment, name: str, values: torch.Tensor) -> torch.Tensor:
        seen.add(len(values))
        return step(segment, name, values)

    monkeypatch.setattr(Segment, "step", record)
    measure_costs(job, "exit")
    assert seen == {job.config.batch_size, job.runtime.inference_batch}


def test_the_comparison_detects_a_used_random_number_and_a_changed_weight(job):
    numbers, network = random_states(), state_of(job.network)
    for draw in (lambda: torch.rand(()), random.random, np.random.rand):
        draw()
        assert random_states() != numbers
        numbers = random_states()
    torch.nn.init.zeros_(job.network.get_parameter("bn1.bias").data)
    assert state_of(job.network) == network  # it was zero
    job.network.get_parameter("bn1.bias").data[3] = 1e-9
    assert state_of(job.network) != network


def test_slow_decoding_shows_in_the_measured_time(job, monkeypatch):
    dataset = type(job.image_inputs("train").dataset)
    read = dataset.__getitem__

    def slowly(self: Any, at: Any) -> Any:
        time.sleep(0.2)
        return read(self, at)

    monkeypatch.setattr(dataset, "__getitem__", slowly)
    assert measure_costs(job, "head").decode >= 0.2 / torch.get_num_threads()


# Not convolutions: in inference, other modules than those with the hooks compute them.
@pytest.mark.parametrize(("unfreeze", "slow"), [("exit", "block12.rep.0"), ("all", "block1.rep.5")])
def test_a_slow_part_shows_in_the_phases_that_compute_it(job, unfreeze, slow):
    images = job.config.batch_size
    job.network.get_submodule(slow).register_forward_hook(lambda *_: time.sleep(0.5))
    costs = measure_costs(job, unfreeze)
    assert min(costs.features, costs.step, costs.validation) >= 0.5 / images
    head = measure_costs(job, "head")
    assert head.features >= 0.5 / images
    assert (head.step, head.validation) == (0.0, 0.0)


def test_a_training_step_does_not_include_the_frozen_part(job):
    passes = []
    for name in ("block11", "block12"):
        job.network.get_submodule(f"{name}.rep.0").register_forward_hook(
            lambda *_, name=name: passes.append(name)
        )
    measure_costs(job, "exit")
    eleven, twelve = "block11", "block12"
    # The whole of an image and of a batch; block 12 in two steps and in validation, too.
    assert (passes.count(eleven), passes.count(twelve)) == (2, 5)


def outcome(run: str) -> tuple[bytes, bytes]:
    return Path(run, "metrics.jsonl").read_bytes(), Path(run, "model.safetensors").read_bytes()


@pytest.mark.slow
def test_measuring_before_a_training_does_not_change_its_bytes(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings |= {"dropout": 0.3, "views": 1, "epochs": 1}
    measured = []
    monkeypatch.setattr(
        estimate, "measure_costs", lambda *given: measured.append(1) or measure_costs(*given)
    )
    train_run(settings, "measured")
    assert measured
    with monkeypatch.context() as patch:
        patch.setattr(preparation, "measure_draft", lambda draft, *_: (draft, NOTHING))
        train_run(settings, "unmeasured")
    assert outcome("measured") == outcome("unmeasured")
    tensors = load_file("measured/model.safetensors")
    assert len(tensors) > 200

    def measure_and_touch(draft: Draft, given: Any, began: float) -> tuple[Draft, Costs]:
        with torch.no_grad():
            draft.job.network.get_parameter("conv1.weight").mul_(1.01)
        return measure_draft(draft, given, began)

    monkeypatch.setattr(preparation, "measure_draft", measure_and_touch)  # the control
    train_run(settings, "touched")
    assert outcome("touched")[0] != outcome("measured")[0]


# Fitting


def test_a_data_folder_called_auto_was_given(settings):
    Path("photos").rename("auto")
    undecided = drafted(settings, data="auto").undecided
    assert "balance" in undecided
    assert "data" not in undecided


def test_only_settings_that_were_not_given_are_the_programs_own_when_a_limit_changes_them(settings):
    del settings["views"]
    limit = disk_bytes(drafted(settings, views=2).job.config, 13, 11) / 1e9
    fewer = drafted(settings, cache_gb=limit)
    assert fewer.job.config.views == 2
    assert "views" in fewer.undecided  # `--from` decides them again
    assert "cache_gb" not in fewer.undecided
    for draft in (drafted(settings), drafted(settings, cache_gb=limit, views=4)):
        assert "views" not in draft.undecided


def test_without_a_budget_the_plan_is_unchanged(draft, monkeypatch):
    monkeypatch.setattr(estimate, "measure_costs", lambda _, unfreeze: (unfreeze, NOTHING)[1])
    assert measure_draft(draft, {"data"}, time.monotonic()) == (draft, NOTHING)


@pytest.mark.parametrize(
    ("budget", "given", "expected"),
    [
        ("10h", {"budget"}, ("exit", 4, 12)),
        ("10h", {"budget", "views", "epochs"}, ("exit", 2, 2)),
        ("50s", {"budget"}, ("head", 1, 1)),
        ("70s", {"budget"}, ("exit", 1, 4)),
        ("115s", {"budget"}, ("exit", 2, 8)),
        ("155s", {"budget"}, ("exit", 3, 12)),
    ],
)
def test_a_budget_decides_the_settings_that_were_not_given(
    settings, monkeypatch, budget, given, expected
):
    # 13 train and 11 val images: 24 seconds for each view and 1.2 for the selection with it, 11 for
    # the evaluation and 5.5 with the mirror images, if there are views; 3 for the probe, 2 for the
    # report, and 4.125 for an epoch.
    costs, measured = Costs(0.5, 0.5, 0.275, 0.05, 0), []
    monkeypatch.setattr(
        estimate, "measure_costs", lambda _, unfreeze: (measured.append(unfreeze), costs)[1]
    )
    asked = {name: value for name, value in settings.items() if name not in {"views", "epochs"}}
    draft = drafted(settings if "views" in given else asked, budget=budget)
    assert draft.job.images == Images(13, 11, 0, classes=3)
    decided, found = measure_draft(draft, given, time.monotonic())
    assert found == costs
    config = decided.job.config
    assert (config.unfreeze, config.views, config.epochs) == expected
    assert config == draft.job.config.replace(
        unfreeze=config.unfreeze, views=config.views, epochs=config.epochs
    )
    assert decided.reasons[-1].startswith(f"--budget {budget}: ")
    defaults = {"views": 3, "epochs": 12}
    changed = {name for name, value in defaults.items() if getattr(config, name) != value}
    assert set(decided.undecided) - set(draft.undecided) == changed - given
    assert decided.job.network is draft.job.network
    assert measured == ["exit", "head"]  # each part once


def test_cached_features_are_reported_with_a_budget_and_decide_nothing(settings, monkeypatch):
    monkeypatch.setattr(estimate, "measure_costs", lambda *_: Costs(0.5, 0.5, 0.275, 0.05, 0))
    draft, given, began = drafted(settings, budget="155s"), {"budget"}, time.monotonic()
    without, _ = measure_draft(draft, given, began)
    monkeypatch.setattr(Job, "cached_share", lambda _: 0.8)
    cached, _ = measure_draft(draft, given, began)
    assert cached.job.config == without.job.config
    assert cached.reasons == (
        *without.reasons,
        "the budget assumes an empty feature cache; 80% of the features are cached, so the run "
        "takes less time",
    )


def test_the_time_already_spent_counts(settings, monkeypatch):
    monkeypatch.setattr(estimate, "measure_costs", lambda *_: NOTHING)
    draft, given = drafted(settings, budget="1000s"), {"budget"}
    assert measure_draft(draft, given, time.monotonic() - 900)[0].job.config.views == 4
    with pytest.raises(UsageError, match="a budget of 1000s is too short"):
        measure_draft(draft, given, time.monotonic() - 960)


def test_a_batch_that_does_not_fit_into_memory_is_computed_in_twice_the_pieces(draft, monkeypatch):
    asked = []

    def measured(given: Job, unfreeze: str) -> Costs:
        asked.append((given.config.accumulate, unfreeze))
        if given.config.accumulate < 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return NOTHING

    monkeypatch.setattr(estimate, "measure_costs", measured)
    decided, costs = measure_draft(draft, {"data"}, time.monotonic())
    assert asked == [(1, "exit"), (2, "exit")]
    assert costs == NOTHING
    assert decided.job.config == draft.job.config.replace(accumulate=2)
    assert decided.reasons[-1].startswith("computing each batch in 2 pieces (--accumulate 2): ")
    assert set(decided.undecided) - set(draft.undecided) == {"accumulate"}

    def with_settings(**changes: Any) -> Draft:
        return replace(draft, job=replace(draft.job, config=draft.job.config.replace(**changes)))

    timed = with_settings(budget="10h")
    assert measure_draft(timed, {"budget"}, time.monotonic())[0].job.config.accumulate == 2

    def always(*_: Any) -> Costs:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(estimate, "measure_costs", always)
    with pytest.raises(torch.OutOfMemoryError):
        measure_draft(draft, {"data"}, time.monotonic())
    with pytest.raises(torch.OutOfMemoryError):
        measure_draft(with_settings(batch_size=1), {"data"}, time.monotonic())


# Reporting


def test_the_phases_are_reported_with_their_times_memory_and_disk(draft, job):
    costs = Costs(decode=10.0, features=90.0, step=300.0, validation=20.0, memory=1_850_000_000)
    job = replace(job, config=job.config.replace(image_size=299, views=4, epochs=5))
    job = replace(job, split=replace(job.split, images=job.split.images * 20))
    assert job.images == Images(260, 220, 0, classes=3)
    phases = expected_seconds(job.config, costs, job.images)
    assert {name: round(value) for name, value in phases.items()} == {
        "features": 192000, "probe": 4, "fine-tuning": 412000, "selection": 38400,
        "evaluation": 41800, "calibration": 0, "refit": 1, "report": 2,
    }  # fmt: skip
    expected = forecast(replace(draft, job=job), costs, 61.0)
    assert expected.total_seconds == 61 + sum(phases.values())
    assert expected.rows() == {
        "preparation": "1 min",
        "features": "53 h 20 min",
        "probe": "4 s",
        "fine-tuning": "114 h 30 min",
        "selection": "10 h 40 min",
        "evaluation": "11 h 40 min",
        "calibration": "0 s",
        "refit": "1 s",
        "report": "2 s",
        "in all": "about 190 h 0 min",
        "memory": "1.9 GB",
        "disk": "1.1 GB",  # 4 times 480 times 546,960 bytes
    }
    head = replace(job, config=job.config.replace(unfreeze="head"))
    unmeasured = replace(costs, memory=0)  # on Windows
    assert forecast(replace(draft, job=head), unmeasured, 0.0).rows() == {
        "preparation": "0 s",
        "features": "53 h 20 min",
        "probe": "4 s",
        "evaluation": "0 s",
        "calibration": "0 s",
        "refit": "1 s",
        "report": "2 s",
        "in all": "about 53 h 20 min",
        "memory": "unknown",
        "disk": "0 MB",
    }
