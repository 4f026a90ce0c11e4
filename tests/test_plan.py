"""What `auto` decides, and the schedule of the learning rate."""

import warnings

import pytest
import torch

from xception_cli.config import TrainConfig
from xception_cli.errors import UsageError
from xception_cli.runtime import Runtime
from xception_cli.training.plan import learning_rate_factor, make_plan

CPU = Runtime(torch.device("cpu"), "fp32")
CUDA = Runtime(torch.device("cuda"), "bf16")  # made without one being there
BALANCED = (10, 10)


@pytest.mark.parametrize(
    ("runtime", "unfreeze", "reason"), [(CPU, "exit", "on a CPU"), (CUDA, "all", "there is a GPU")]
)
def test_auto_trains_the_exit_flow_on_a_cpu_and_everything_on_a_gpu(runtime, unfreeze, reason):
    plan = make_plan(TrainConfig(), runtime, BALANCED)
    assert plan.config == TrainConfig(
        unfreeze=unfreeze, monitor="accuracy", precision=runtime.precision
    )
    assert len(plan.reasons) == 2
    assert reason in plan.reasons[0]
    assert f"--unfreeze {unfreeze}" in plan.reasons[0]


@pytest.mark.parametrize("runtime", [CPU, CUDA])
@pytest.mark.parametrize("unfreeze", ["head", "exit", "middle", "all"])
def test_what_was_asked_for_is_not_decided(runtime, unfreeze):
    given = TrainConfig(unfreeze=unfreeze, monitor="macro_recall", lr=0.5)
    plan = make_plan(given, runtime, BALANCED)
    assert plan.config == given.replace(precision=runtime.precision)
    assert plan.reasons == ()


@pytest.mark.parametrize(
    ("counts", "monitor"),
    [
        ((30, 10, 20), "accuracy"),  # 3.0 times
        ((31, 10, 20), "macro_recall"),  # 3.1 times
        ((10, 31), "macro_recall"),
        ((1, 1000), "macro_recall"),
        ((7, 7), "accuracy"),
    ],
)
def test_the_best_model_is_judged_by_class_when_classes_are_over_3_times_as_large(counts, monitor):
    plan = make_plan(TrainConfig(), CPU, counts)
    assert plan.config.monitor == monitor
    assert f"{max(counts) / min(counts):.1f} times" in plan.reasons[-1]
    assert monitor.replace("_", " ") in plan.reasons[-1]


@pytest.mark.parametrize("unfreeze", ["auto", "all"])
def test_from_random_weights_everything_is_trained_on_a_cpu_too(unfreeze):
    plan = make_plan(TrainConfig(weights="none", unfreeze=unfreeze), CPU, BALANCED)
    assert plan.config.unfreeze == "all"
    assert "--weights none" in plan.reasons[0]


@pytest.mark.parametrize("unfreeze", ["head", "exit", "middle"])
def test_random_weights_are_not_frozen(unfreeze):
    with pytest.raises(UsageError, match=f"--unfreeze {unfreeze} would freeze some") as caught:
        make_plan(TrainConfig(weights="none", unfreeze=unfreeze), CPU, BALANCED)
    assert "--unfreeze all" in caught.value.hint


# The schedule


def factors(total: int, warmup: float) -> list[float]:
    return [learning_rate_factor(iteration, total, warmup) for iteration in range(1, total + 1)]


def test_the_rate_rises_in_equal_steps_to_its_peak_and_falls_to_nothing():
    rates = factors(1000, 0.1)
    assert rates[:100] == pytest.approx([n / 101 for n in range(1, 101)])
    assert rates == [*sorted(rates[:101]), *sorted(rates[101:], reverse=True)]
    assert max(rates) == rates[100] == 1
    assert rates[100 + 450] == pytest.approx(0.5)  # half of the 900 iterations of the cosine
    assert rates[100 + 300] == pytest.approx(0.75)  # a third: (1 + cos 60 degrees) / 2
    assert rates[100 + 600] == pytest.approx(0.25)
    assert 0 < rates[-1] < 1e-5  # it would be 0 behind the last one, which must not be wasted


@pytest.mark.parametrize(("total", "warmup"), [(40, 0.05), (40, 0.0), (7, 0.5), (1, 0.0)])
def test_behind_the_warm_up_it_is_torchs_cosine(total, warmup):
    rising = round(total * warmup)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=total - rising)
    expected = []
    with warnings.catch_warnings(action="ignore"):  # of a scheduler without an optimizer's steps
        for _ in range(total - rising):
            expected.append(cosine.get_last_lr()[0])
            cosine.step()
    assert factors(total, warmup)[rising:] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("total", [1, 2, 3, 20, 999])
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.5, 0.9])
def test_every_factor_is_between_nothing_and_the_peak(total, warmup):
    rates = factors(total, warmup)
    assert all(0 <= rate <= 1 for rate in rates)
    assert total == 1 or max(rates) > 0.4
