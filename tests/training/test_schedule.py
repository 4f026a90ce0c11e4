"""The learning rate schedules."""

import warnings

import pytest
import torch

from xception_cli.training.schedule import learning_rate_factor, stepped_factor


def factors(total: int, warmup: float) -> list[float]:
    return [learning_rate_factor(iteration, total, warmup) for iteration in range(1, total + 1)]


def test_the_rate_rises_linearly_to_its_peak_and_falls_to_nearly_0():
    rates = factors(1000, 0.1)
    assert rates[:100] == pytest.approx([n / 101 for n in range(1, 101)])
    assert rates == [*sorted(rates[:101]), *sorted(rates[101:], reverse=True)]
    assert max(rates) == rates[100] == 1
    assert rates[100 + 450] == pytest.approx(0.5)  # half of the 900 iterations of the cosine
    assert rates[100 + 300] == pytest.approx(0.75)  # a third: (1 + cos 60 degrees) / 2
    assert rates[100 + 600] == pytest.approx(0.25)
    assert 0 < rates[-1] < 1e-5  # it would be 0 after the last iteration, which must not be wasted


@pytest.mark.parametrize(("total", "warmup"), [(40, 0.05), (40, 0.0), (7, 0.5), (1, 0.0)])
def test_after_the_warm_up_it_is_torchs_cosine(total, warmup):
    rising = round(total * warmup)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=total - rising)
    expected = []
    with warnings.catch_warnings(action="ignore"):  # a scheduler without optimizer steps
        for _ in range(total - rising):
            expected.append(cosine.get_last_lr()[0])
            cosine.step()
    assert factors(total, warmup)[rising:] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("total", [1, 2, 3, 20, 999])
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.5, 0.9])
def test_every_factor_is_between_0_and_the_peak(total, warmup):
    rates = factors(total, warmup)
    assert all(0 <= rate <= 1 for rate in rates)
    assert total == 1 or max(rates) > 0.4


def test_the_papers_schedule_is_torchs_step_schedule():
    epoch_length, epochs = 3, 7
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    steps = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2 * epoch_length, gamma=0.94)
    expected = []
    with warnings.catch_warnings(action="ignore"):  # a scheduler without optimizer steps
        for _ in range(epochs * epoch_length):
            expected.append(steps.get_last_lr()[0])
            steps.step()
    total = epochs * epoch_length
    found = [stepped_factor(n, total, 0.0, epoch_length) for n in range(1, total + 1)]
    assert found == pytest.approx(expected, abs=1e-12)
    assert found[5:7] == [1.0, 0.94]  # the first step is after the second epoch
    rising = [stepped_factor(n, 20, 0.5, 5) for n in range(1, 12)]
    assert rising == pytest.approx([n / 11 for n in range(1, 11)] + [0.94])
