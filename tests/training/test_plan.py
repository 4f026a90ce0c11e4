"""Decisions of `auto`, the disk and a time budget; and the expected cost of a training."""

import re

import pytest
import torch

from xception_cli.config import TrainConfig
from xception_cli.errors import UsageError
from xception_cli.notation import parse_duration
from xception_cli.runtime import Runtime
from xception_cli.training.costs import (
    PROBE_SECONDS,
    REPORT_SECONDS,
    Costs,
    Images,
    disk_bytes,
    expected_seconds,
    val_views,
)
from xception_cli.training.plan import (
    LADDER,
    MARGIN,
    Plan,
    Rung,
    class_weights,
    describe_rung,
    fit_budget,
    ladder,
    make_plan,
)

CPU = Runtime(torch.device("cpu"), "fp32")
CUDA = Runtime(torch.device("cuda"), "bf16")  # no GPU is needed for this
BALANCED = (20, 20)
VAL = 4  # images


@pytest.mark.parametrize(
    ("runtime", "unfreeze", "reason"), [(CPU, "exit", "on a CPU"), (CUDA, "all", "there is a GPU")]
)
def test_auto_trains_the_exit_flow_on_a_cpu_and_everything_on_a_gpu(runtime, unfreeze, reason):
    plan = make_plan(TrainConfig(), runtime, BALANCED, VAL)
    assert plan.config == TrainConfig(
        unfreeze=unfreeze, monitor="last", balance="none", precision=runtime.precision
    )
    assert len(plan.reasons) == 1
    assert reason in plan.reasons[0]
    assert f"--unfreeze {unfreeze}" in plan.reasons[0]


def test_with_few_images_per_class_a_cpu_stops_at_the_linear_probe():
    def unfreeze(runtime: Runtime, *counts: int) -> str:
        return make_plan(TrainConfig(), runtime, counts, VAL).config.unfreeze

    assert unfreeze(CPU, 14, 15) == "head"
    assert unfreeze(CPU, 15, 15) == "exit"
    assert unfreeze(CPU, 2, 28) == "exit"  # on average
    assert unfreeze(CUDA, 2, 2) == "all"
    (reason,) = make_plan(TrainConfig(), CPU, (8, 9), VAL).reasons
    assert reason == (
        "stopping at the linear probe (--unfreeze head): with under 15 training images per class "
        "on average (8.5), val cannot show that fine-tuning is better"
    )


def test_a_long_training_of_all_layers_on_a_gpu_gets_a_hint_on_compiling():
    def reasons(runtime: Runtime, images: int, **changes: object) -> str:
        config = TrainConfig(epochs=10, **changes)
        return " ".join(make_plan(config, runtime, (images // 2, images // 2), VAL).reasons)

    assert "--compile would be faster: 300,000 images" in reasons(CUDA, 30_000)
    for other in (
        reasons(CUDA, 29_998),
        reasons(CPU, 30_000),
        reasons(CUDA, 30_000, compile=True),
        reasons(CUDA, 30_000, unfreeze="head"),
    ):
        assert "--compile" not in other


@pytest.mark.parametrize("runtime", [CPU, CUDA])
@pytest.mark.parametrize("unfreeze", ["head", "exit", "middle", "all"])
def test_given_settings_are_not_decided(runtime, unfreeze):
    given = TrainConfig(unfreeze=unfreeze, monitor="macro_recall", balance="loss", lr=0.5)
    plan = make_plan(given, runtime, BALANCED, VAL)
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
def test_from_random_weights_a_metric_by_class_selects_if_a_class_is_over_3_times_as_large(
    counts, monitor
):
    plan = make_plan(TrainConfig(weights="none"), CPU, counts, VAL)
    assert plan.config.monitor == monitor
    assert f"{max(counts) / min(counts):.1f} times" in plan.reasons[-1]
    assert monitor.replace("_", " ") in plan.reasons[-1]


@pytest.mark.parametrize("runtime", [CPU, CUDA])
@pytest.mark.parametrize("unfreeze", ["auto", "head", "exit", "middle", "all"])
@pytest.mark.parametrize("counts", [(1, 1000), (7, 7)])
def test_from_pretrained_weights_the_last_epoch_is_selected_and_no_reason_is_listed(
    runtime, unfreeze, counts
):
    plan = make_plan(TrainConfig(unfreeze=unfreeze), runtime, counts, VAL)
    assert plan.config.monitor == "last"
    given = make_plan(TrainConfig(unfreeze=unfreeze, monitor="last"), runtime, counts, VAL)
    assert plan == given  # so no reason is listed
    assert not any("on val" in reason for reason in plan.reasons)


@pytest.mark.parametrize("monitor", ["last", "accuracy", "macro_recall"])
@pytest.mark.parametrize("weights", ["imagenet", "none"])
def test_a_given_monitor_is_kept_with_all_weights(weights, monitor):
    plan = make_plan(TrainConfig(weights=weights, monitor=monitor), CPU, (31, 10, 20), VAL)
    assert plan.config.monitor == monitor
    assert not any("on val" in reason for reason in plan.reasons)


@pytest.mark.parametrize("counts", [(31, 10, 20), (7, 7)])
@pytest.mark.parametrize("asked", ["auto", "none", "loss"])
def test_rare_classes_weigh_more_if_a_class_is_over_3_times_as_large_by_default(counts, asked):
    plan = make_plan(TrainConfig(balance=asked), CPU, counts, VAL)
    uneven = len(counts) == 3
    assert plan.config.balance == (asked if asked != "auto" else "sampler" if uneven else "none")
    reason = "drawing images of rare classes more often (--balance sampler)"
    assert (reason in plan.reasons) == (uneven and asked == "auto")


def test_the_weight_of_a_class_is_the_root_of_its_rarity_and_1_on_average():
    weights = class_weights([400, 100, 4])
    assert weights[2] == pytest.approx(10 * weights[0])
    assert weights[1] == pytest.approx(2 * weights[0])
    assert 400 * weights[0] + 100 * weights[1] + 4 * weights[2] == pytest.approx(504)
    assert class_weights([5, 5]) == pytest.approx([1, 1])


@pytest.mark.parametrize("unfreeze", ["auto", "all"])
def test_from_random_weights_everything_is_trained_on_a_cpu_too(unfreeze):
    plan = make_plan(TrainConfig(weights="none", unfreeze=unfreeze), CPU, BALANCED, VAL)
    assert plan.config.unfreeze == "all"
    assert "--weights none" in plan.reasons[0]


@pytest.mark.parametrize("unfreeze", ["head", "exit", "middle"])
def test_random_weights_are_not_frozen(unfreeze):
    with pytest.raises(UsageError, match=f"--unfreeze {unfreeze} would freeze some") as caught:
        make_plan(TrainConfig(weights="none", unfreeze=unfreeze), CPU, BALANCED, VAL)
    assert "--unfreeze all" in caught.value.hint


# The disk

COUNTS, VAL_COUNT = (500, 500), 200
# Bytes of block 11's output at 299 pixels, stored as bf16, and of the averages over the positions
# of four layers, stored as fp32.
ROW = 19 * 19 * 728 * 2 + (728 + 1024 + 1536 + 2048) * 4
DISK = 3 * (1000 + 200) * ROW  # 2.0 GB: three views of train and of val, which refits the head


def on_disk(unfreeze: str = "auto", runtime: Runtime = CPU, **settings: object) -> Plan:
    """Plan a training of 1000 images with all other settings given."""
    config = TrainConfig(unfreeze=unfreeze, monitor="accuracy", balance="none", **settings)
    return make_plan(config, runtime, COUNTS, VAL_COUNT)


@pytest.mark.parametrize("unfreeze", ["exit", "middle"])
def test_activations_that_just_fit_on_the_disk_are_kept(unfreeze):
    plan = on_disk(unfreeze, cache_gb=DISK / 1e9)
    assert disk_bytes(plan.config, 1000, 200) == DISK
    assert plan == Plan(
        TrainConfig(
            unfreeze=unfreeze,
            monitor="accuracy",
            balance="none",
            precision="fp32",
            cache_gb=DISK / 1e9,
        ),
        (),
    )
    assert on_disk(unfreeze, cache_gb=(DISK - 1) / 1e9).config.views == 2  # the control


@pytest.mark.parametrize("unfreeze", ["exit", "middle"])
@pytest.mark.parametrize(("tta", "views"), [("auto", 2), ("none", 1)])
def test_without_a_refit_one_or_two_views_of_val_are_kept(unfreeze, tta, views):
    room = (3 * 1000 + views * 200) * ROW
    asked = {"refit": False, "tta": tta}
    plan = on_disk(unfreeze, cache_gb=room / 1e9, **asked)
    assert (plan.config.views, disk_bytes(plan.config, 1000, 200)) == (3, room)
    assert plan.reasons == ()
    assert on_disk(unfreeze, cache_gb=(room - 1) / 1e9, **asked).config.views == 2
    assert on_disk(unfreeze, cache_gb=room / 1e9).config.views == 2  # the control


@pytest.mark.parametrize("unfreeze", ["head", "exit", "all"])
@pytest.mark.parametrize(
    "given", [{"views": 1}, {"augment": "rotate90"}, {"refit": False}], ids=str
)
def test_a_model_that_averages_the_mirror_image_has_it_in_val_for_any_views(unfreeze, given):
    config = TrainConfig(unfreeze=unfreeze, **given)
    assert val_views(config.replace(tta="mirror")) >= 2
    images = Images(100, 20, 0)
    more = images.seen(config.replace(tta="mirror")) - images.seen(config.replace(tta="none"))
    assert more == 20 * (
        val_views(config.replace(tta="mirror")) - val_views(config.replace(tta="none"))
    )


# Three views take 1.969 GB, two 1.313 GB, one 0.656 GB.
@pytest.mark.parametrize(("limit", "views"), [(1.96, 2), (1.32, 2), (1.31, 1), (0.66, 1)])
def test_fewer_views_are_kept_if_the_disk_is_too_small(limit, views):
    plan = on_disk("exit", cache_gb=limit)
    assert plan == Plan(
        TrainConfig(
            unfreeze="exit",
            monitor="accuracy",
            balance="none",
            precision="fp32",
            cache_gb=limit,
            views=views,
        ),
        (f"{views} of 3 views: all of them would take 2.0 GB, over --cache-gb {limit:g}",),
    )
    assert disk_bytes(plan.config, 1000, 200) <= limit * 1e9
    assert disk_bytes(plan.config.replace(views=views + 1), 1000, 200) > limit * 1e9


@pytest.mark.parametrize("limit", [0.65, 0.1, 0.0])
def test_only_the_head_is_trained_if_not_even_one_view_fits_on_the_disk(limit):
    plan = on_disk(cache_gb=limit)
    assert plan.config == TrainConfig(
        unfreeze="head", monitor="accuracy", balance="none", precision="fp32", cache_gb=limit
    )
    assert plan.reasons[-1] == (
        "training the head only (--unfreeze head): one view of the images would take 0.7 GB, over "
        f"--cache-gb {limit:g}"
    )
    assert disk_bytes(plan.config, 1000, 200) == 0


def test_the_reasons_do_not_name_a_part_that_is_not_trained():
    assert not any("--unfreeze exit" in reason for reason in on_disk(cache_gb=0.0).reasons)


@pytest.mark.parametrize("unfreeze", ["exit", "middle"])
def test_a_requested_part_that_does_not_fit_on_the_disk_is_refused(unfreeze):
    with pytest.raises(UsageError) as caught:
        on_disk(unfreeze, cache_gb=0.5)
    assert caught.value.exit_code == 2
    assert caught.value.message == (
        f"--unfreeze {unfreeze} keeps 0.7 GB of activations for one view of the images, over "
        "--cache-gb 0.5"
    )
    assert on_disk("head", cache_gb=0.0).config.unfreeze == "head"  # one of the alternatives


@pytest.mark.parametrize("count", [5, 40, 400, 1000, 2400, 4000, 40_000])
def test_the_cache_size_in_the_hint_of_a_refusal_is_accepted(count):
    config = TrainConfig(unfreeze="exit", cache_gb=0.0)
    with pytest.raises(UsageError) as caught:
        make_plan(config, CPU, (count, count), count)
    hinted = float(re.search(r"--cache-gb ([\d.]+)", caught.value.hint)[1])
    plan = make_plan(config.replace(cache_gb=hinted), CPU, (count, count), count)
    assert (plan.config.unfreeze, plan.config.views >= 1) == ("exit", True)
    assert hinted <= 1 + 1.5 * 3 * count * ROW / 1e9  # and not far more than needed


@pytest.mark.parametrize(
    ("runtime", "settings"),
    [
        (CUDA, {}),
        (CPU, {"unfreeze": "all"}),
        (CPU, {"unfreeze": "head"}),
        (CPU, {"weights": "none"}),
    ],
    ids=["a GPU", "all", "head", "random weights"],
)
def test_a_training_that_stores_no_activations_needs_no_disk(runtime, settings):
    free, none = (on_disk(runtime=runtime, cache_gb=limit, **settings) for limit in (20.0, 0.0))
    assert free == Plan(none.config.replace(cache_gb=20.0), none.reasons)
    assert none.config.views == 3


# Expected cost

COSTS = Costs(decode=0.01, features=0.1, step=0.03, validation=0.005, memory=0)
IMAGES = Images(train=100, val=20, test=10)


def test_the_probe_of_many_classes_is_expected_to_take_longer():
    config = TrainConfig(unfreeze="exit", views=3)
    many = Images(train=972, val=240, test=0, classes=81)
    found = expected_seconds(config, COSTS, many)["probe"]
    # 20 fits of 972 rows in 972 dimensions, 7 of 2916 rows in 5336, each for 81 classes
    work = 81 * (20 * 972 * 972 + 7 * 2916 * 5336)
    assert found == pytest.approx(PROBE_SECONDS + 6e-9 * work)
    assert 55 < found < 75
    after = expected_seconds(config, COSTS, many)  # heads of both networks; and of train and val
    assert after["refit"] == pytest.approx(6e-9 * 81 * 3 * 3 * 1212 * 5336)
    assert after["selection"] > after["refit"] * 972 / 1212
    assert after["calibration"] == pytest.approx(81 * (6e-9 * 6 * 972 * 972 + 2e-6 * 240))
    huge = expected_seconds(config, COSTS, many._replace(train=100_000))["probe"]
    assert huge == pytest.approx(
        PROBE_SECONDS + 6e-9 * 81 * (20 * 5000 * 5000 + 7 * 100_000 * 5336)
    )  # one view of each image


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (  # 3 views of 100 and 20 images at 0.11 s; 5 times 100 at 0.03 and 20 at 0.005; and the
            # views again, through the trained part at 0.005
            {"unfreeze": "exit", "views": 3, "epochs": 5},
            {"features": 39.6, "probe": PROBE_SECONDS, "fine-tuning": 15.5, "selection": 1.8},
        ),
        (  # 3 views of 100 images, two of 20: the second is the mirror image
            {"unfreeze": "exit", "views": 3, "epochs": 5, "refit": False},
            {"features": 37.4, "probe": PROBE_SECONDS, "fine-tuning": 15.5, "selection": 1.7},
        ),
        (
            {"unfreeze": "middle", "views": 1, "epochs": 1},
            {"features": 13.2, "probe": PROBE_SECONDS, "fine-tuning": 3.1, "selection": 0.6},
        ),
        ({"unfreeze": "head", "views": 3, "epochs": 5}, {"features": 39.6, "probe": PROBE_SECONDS}),
        (
            {"unfreeze": "head", "views": 3, "refit": False, "tta": "none"},
            {"features": 35.2, "probe": PROBE_SECONDS},
        ),
        (  # 15.5 and decoding: 120 at 0.01 in the first epoch, half of that in the others; one view
            # before training, and again after it
            {"unfreeze": "all", "views": 3, "epochs": 5},
            {"features": 13.2, "probe": PROBE_SECONDS, "fine-tuning": 19.1, "selection": 13.2},
        ),
        ({"unfreeze": "all", "weights": "none", "epochs": 5}, {"fine-tuning": 19.1}),
    ],
    ids=["exit", "exit, no refit", "middle", "head", "head, no refit", "all", "random weights"],
)
def test_the_expected_times_are_sums_over_the_images(settings, expected):
    found = expected_seconds(TrainConfig(**settings), COSTS, IMAGES)
    # 30 images at 0.11 s; and their mirror images at 0.1, if they may be averaged in
    is_mirrored = settings["unfreeze"] != "all" and settings["views"] > 1
    mirrored = 3.0 * (is_mirrored and "tta" not in settings)
    if settings["unfreeze"] == "head" or (settings["unfreeze"] == "all" and "probe" in expected):
        expected["evaluation"] = (3.3 + mirrored) / 3  # test alone: the features of val are known
    else:
        expected["evaluation"] = 3.3 + mirrored
    if "probe" in expected:  # with few classes, fits take almost no time
        expected |= {"calibration": 0} | ({"refit": 0} if settings.get("refit", True) else {})
    expected["report"] = REPORT_SECONDS
    assert list(found) == list(expected)
    assert found == pytest.approx(expected)


# A time budget


def rungs_of(device: str = "cpu", **given: object) -> list[Rung]:
    config = TrainConfig(**{"unfreeze": "exit" if device == "cpu" else "all"} | given)
    return ladder(config, given.keys(), device)


@pytest.mark.parametrize(("device", "name"), [("cpu", "cpu"), ("cuda", "gpu"), ("mps", "gpu")])
def test_without_given_settings_the_ladder_is_complete(device, name):
    assert rungs_of(device) == list(LADDER[name])


@pytest.mark.parametrize(
    ("device", "given", "expected"),
    [
        (
            "cpu",
            {"unfreeze": "middle"},
            [("middle", 4, 12), ("middle", 3, 12), ("middle", 2, 12), ("middle", 2, 8),
             ("middle", 1, 8), ("middle", 1, 4)],
        ),
        (
            "cpu",
            {"views": 5},
            [("exit", 5, 12), ("exit", 5, 8), ("exit", 5, 4), ("head", 5, 1)],
        ),
        (
            "cpu",
            {"epochs": 7},
            [("exit", 4, 7), ("exit", 3, 7), ("exit", 2, 7), ("exit", 1, 7), ("head", 3, 7),
             ("head", 1, 7)],
        ),
        ("cpu", {"unfreeze": "exit", "views": 2, "epochs": 3}, [("exit", 2, 3)]),
        ("cpu", {"views": 9, "epochs": 30}, [("exit", 9, 30), ("head", 9, 30)]),
        (
            "cuda",
            {"epochs": 2},
            [("all", 1, 2), ("exit", 2, 2), ("head", 3, 2), ("head", 1, 2)],
        ),
        (
            "cuda",
            {"unfreeze": "all"},
            [("all", 1, 12), ("all", 1, 8), ("all", 1, 5), ("all", 1, 3)],
        ),
    ],
    ids=str,
)  # fmt: skip
def test_given_settings_are_on_every_rung(device, given, expected):
    assert rungs_of(device, **given) == [Rung(*rung) for rung in expected]


def test_on_a_cpu_the_second_rung_equals_the_defaults_and_the_first_has_another_view():
    defaults = make_plan(TrainConfig(), CPU, BALANCED, VAL).config
    first, second, *_ = rungs_of("cpu")
    assert second == Rung(defaults.unfreeze, defaults.views, defaults.epochs)
    assert first == second._replace(views=defaults.views + 1)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_given_head_is_the_only_rung(device):
    assert {rung.unfreeze for rung in rungs_of(device, unfreeze="head")} == {"head"}


def test_few_images_are_not_fine_tuned_because_there_is_time():
    few = make_plan(TrainConfig(budget="2h"), CPU, [14, 14], VAL)
    rungs = ladder(few.config, set(), "cpu")
    fitted = fit_budget(few, rungs, EVERY, BIG, SPENT)
    assert fitted.config.unfreeze == "head"
    assert "under 15 training images per class" in fitted.reasons[0]
    assert "--budget 2h: the linear probe alone on 4 views" in fitted.reasons[-1]
    enough = make_plan(TrainConfig(budget="2h"), CPU, [15, 15], VAL)  # the control
    fitted = fit_budget(enough, ladder(enough.config, set(), "cpu"), EVERY, BIG, SPENT)
    assert fitted.config.unfreeze == "exit"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_random_weights_are_never_frozen_for_lack_of_time(device):
    rungs = ladder(TrainConfig(weights="none", unfreeze="all"), {"weights"}, device)
    assert {rung.unfreeze for rung in rungs} == {"all"}
    assert {rung.epochs for rung in rungs} >= {12, 8}


@pytest.mark.parametrize(
    ("rung", "expected"),
    [
        (Rung("exit", 4, 12), "training the exit flow on 4 views for 12 epochs"),
        (Rung("exit", 1, 4), "training the exit flow on 1 view for 4 epochs"),
        (Rung("middle", 2, 1), "training the middle and exit flow on 2 views for 1 epoch"),
        (Rung("all", 1, 8), "training everything for 8 epochs"),
        (Rung("head", 3, 1), "the linear probe alone on 3 views"),
        (Rung("head", 1, 1), "the linear probe alone on 1 view"),
    ],
    ids=str,
)
def test_a_rung_is_described_in_words(rung, expected):
    assert describe_rung(rung) == expected


EVERY = {
    "head": Costs(decode=0.01, features=0.1, step=0.0, validation=0.0, memory=0),
    "exit": COSTS,
    "middle": Costs(decode=0.01, features=0.1, step=0.08, validation=0.02, memory=0),
    "all": Costs(decode=0.01, features=0.1, step=0.3, validation=0.1, memory=0),
}
BIG = Images(1000, 200, 0)
SPENT = 7.0
REASONS = ("training the exit flow (--unfreeze exit): on a CPU the rest is computed once", "other")


def planned(text: str, rungs: list[Rung], images: Images = BIG, **settings: object) -> Plan:
    config = TrainConfig(budget=text, unfreeze=rungs[0].unfreeze, **settings)
    return fit_budget(Plan(config, REASONS), rungs, EVERY, images, SPENT)


def needed_by(rung: Rung, images: Images = BIG) -> float:
    config = TrainConfig(**rung._asdict())
    return SPENT + sum(expected_seconds(config, EVERY[rung.unfreeze], images).values())


def test_the_best_rung_that_fits_is_chosen_and_reported():
    # 4 views of 1000 and 200 images at 0.11 s are 528 s, 12 epochs of 1000 at 0.03 and of 200 at
    # 0.005 s are 372 s, the views at 0.005 s again 24 s, 200 images evaluated 42 s; 3 s for the
    # probe, 2 s for the report, 7 s spent.
    whole, two_views = 528 + 372 + 24 + 42 + 12, 264 + 248 + 12 + 42 + 12
    text = f"{whole / MARGIN + 1:.0f}s"
    assert planned(text, rungs_of()) == Plan(
        TrainConfig(budget=text, unfreeze="exit", views=4, epochs=12),
        (
            "other",
            f"--budget {text}: training the exit flow on 4 views for 12 epochs, about 16 min 18 s "
            "in all; a longer budget changes nothing",
        ),
    )
    text = f"{two_views / MARGIN + 1:.0f}s"
    assert planned(text, rungs_of()) == Plan(
        TrainConfig(budget=text, unfreeze="exit", views=2, epochs=8),
        (
            "other",
            f"--budget {text}: training the exit flow on 2 views for 8 epochs, about 9 min 38 s "
            "in all",
        ),
    )


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(
    "given", [{}, {"views": 3}, {"epochs": 5}, {"unfreeze": "exit", "views": 2}], ids=str
)
def test_more_time_never_gives_less_and_the_choice_fits(device, given):
    rungs = rungs_of(device, **given)
    needs = [needed_by(rung) for rung in rungs]
    positions = []
    around = (need * factor for need in needs for factor in (0.999, 1.001, 1.2))
    for budget in sorted(need / MARGIN for need in around if need > min(needs)):
        config = planned(f"{budget:.3f}s", rungs).config
        at = rungs.index(Rung(config.unfreeze, config.views, config.epochs))
        assert needs[at] <= MARGIN * budget + 1e-3
        assert all(need > MARGIN * budget - 1e-3 for need in needs[:at])
        positions.append(at)
    assert positions == sorted(positions, reverse=True)
    assert positions[-1] == 0
    assert len(set(positions)) > 1


REFUSALS = [
    (device, given)
    for device in ("cpu", "cuda")
    for given in ({}, {"unfreeze": "exit"}, {"unfreeze": "all"}, {"unfreeze": "head"},
                  {"views": 3}, {"epochs": 5}, {"unfreeze": "middle", "views": 2, "epochs": 3})
]  # fmt: skip


@pytest.mark.parametrize(("device", "given"), REFUSALS, ids=str)
def test_too_little_time_is_refused_with_the_minimum(device, given):
    rungs = rungs_of(device, **given)
    cheapest = min(rungs, key=needed_by)
    least = needed_by(cheapest) / MARGIN
    planned(f"{least + 0.01:.2f}s", rungs)
    text = f"{least - 0.01:.2f}s"
    with pytest.raises(UsageError) as caught:
        planned(text, rungs)
    assert caught.value.exit_code == 2
    minutes, seconds = divmod(round(least), 60)
    assert caught.value.message == (
        f"a budget of {text} is too short: {describe_rung(cheapest)} takes about {minutes} min "
        f"{seconds} s on this machine"
    )


@pytest.mark.parametrize(("device", "given"), REFUSALS, ids=str)
def test_the_budget_in_the_hint_of_a_refusal_is_accepted_and_not_wasteful(device, given):
    rungs = rungs_of(device, **given)
    for images in (Images(3, 1, 0), IMAGES, BIG, Images(10**6, 10**5, 0)):
        with pytest.raises(UsageError) as caught:
            planned("1s", rungs, images, cache_gb=1e6)
        hinted = caught.value.hint.removeprefix("--budget ")
        assert hinted != caught.value.hint
        planned(hinted, rungs, images, cache_gb=1e6)
        least = needed_by(rungs[-1], images) / MARGIN
        assert parse_duration(hinted) <= 1.1 * least + 60


def test_a_budget_does_not_choose_views_that_do_not_fit_on_the_disk():
    room = 2 * (1000 + 200) * ROW / 1e9  # of two views

    def bought(**settings: object) -> Rung:
        config = planned("10h", rungs_of(), **settings).config
        return Rung(config.unfreeze, config.views, config.epochs)

    assert bought(cache_gb=room) == Rung("exit", 2, 12)
    assert bought(cache_gb=room * 0.99) == Rung("exit", 1, 8)
    assert bought(cache_gb=0.1) == Rung("head", 3, 1)  # which stores nothing
    assert bought() == Rung("exit", 4, 12)  # the control


def test_the_linear_probe_sees_one_view_if_the_time_is_too_short_for_three():
    # A view of 1200 images takes 132 s, and val is judged by these features; 3 s for the probe, 2 s
    # for the report, 7 s spent.
    three, one = 3 * 132 + 12, 132 + 12
    heads = [rung for rung in rungs_of() if rung.unfreeze == "head"]
    for needed, views in ((three, 3), (one, 1)):
        assert needed_by(Rung("head", views, 1)) == pytest.approx(needed)
    assert planned(f"{three / MARGIN + 0.1:.1f}s", heads).config.views == 3
    assert planned(f"{three / MARGIN - 0.1:.1f}s", heads).config.views == 1
    config = planned(f"{one / MARGIN + 0.1:.1f}s", rungs_of()).config
    assert (config.unfreeze, config.views) == ("head", 1)
