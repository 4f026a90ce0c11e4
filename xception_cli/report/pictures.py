"""The galleries of report.html: predictions, inputs of the network, and problems of the data."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from xception_cli.check.report import CONFLICTING, DUPLICATE, LEAK, NEAR, OLD_NEAR, SUSPECTS
from xception_cli.console import screen, show
from xception_cli.data.images import ImageError, read_listed
from xception_cli.data.photo import Photo
from xception_cli.data.split import EXCLUDED
from xception_cli.data.transforms import Preprocessing
from xception_cli.evaluation.scored import Scored
from xception_cli.files import utf8
from xception_cli.model.bundle import ModelBundle
from xception_cli.report.activation_maps import draw_heat, heat_maps
from xception_cli.report.html import Card, Thumbnail, embed, photo
from xception_cli.seeds import seed_everything

_LABELS, _PAIRS = 12, 8  # cards of a kind
_HOW = ("as in evaluation", "as in training", "as in training, another random view")
_NOTHING = Image.new("RGB", (8, 8))  # replaces a missing image in a batch


def draw_cards(
    scored: Scored, root: Path, bundle: ModelBundle, chosen: Sequence[int]
) -> list[Card]:
    """Show images with their heat maps and predictions, computed in batches.

    Args:
        scored: The images of an evaluation.
        root: Folder that their paths are relative to; a missing image leaves a gap.
        bundle: The model.
        chosen: Indices into `scored`.

    Returns:
        A card for each, in order.
    """
    cards = []
    transform = bundle.preprocessing.evaluation_transform()
    with screen.bar("writing the report", len(chosen), heartbeat=False) as bar:
        size = bundle.runtime.inference_batch
        for start in range(0, len(chosen), size):
            batch = list(chosen[start : start + size])
            images = [
                _read(root, scored.photos[index].path, bundle.preprocessing) for index in batch
            ]
            pixels = torch.stack([transform(image or _NOTHING) for image in images])
            pixels = bundle.runtime.join_parts([pixels], size)
            heats = heat_maps(bundle, pixels, torch.from_numpy(scored.guesses[batch]))
            for index, image, heat in zip(batch, images, heats, strict=True):
                path = scored.photos[index].path
                shown: tuple[Thumbnail | None, ...] = (None,)
                if image is not None:
                    drawn = draw_heat(image, heat, bundle.preprocessing)
                    shown = (embed(image, path), embed(drawn, f"heat map of {show(path)}"))
                cards.append(Card(shown, _message(scored, bundle.classes, index), path))
            bar.advance(len(batch))
    return cards


def draw_inputs(
    root: Path,
    paths: Sequence[str],
    preprocessing: Preprocessing,
    *,
    augment: str,
    flip: bool,
    seed: int,
    views: int,
) -> list[Card]:
    """Show images as the network sees them: in evaluation, and in random training views.

    Args:
        root: Folder that the paths are relative to; missing images are left out.
        paths: The images.
        preprocessing: Preprocessing of the model.
        augment: Augmentation of training.
        flip: Whether training mirrors half of the images.
        seed: Seed of the random views.
        views: Number of the random views.
    """
    random = preprocessing.training_transform(augment=augment, flip=flip)
    cards = []
    for number, path in enumerate(paths):
        image = _read(root, path, preprocessing)
        if image is None:
            continue
        seed_everything(seed, "report", number)
        seen = [preprocessing.evaluation_transform()(image), *(random(image) for _ in range(views))]
        thumbnails = tuple(
            embed(Image.fromarray(view.permute(1, 2, 0).numpy()), f"{show(path)} {how}")
            for view, how in zip(seen, _HOW[: views + 1], strict=True)
        )
        cards.append(Card(thumbnails, "", path))
    return cards


def _read(root: Path, name: str, preprocessing: Preprocessing) -> Image.Image | None:
    try:
        return read_listed(
            root,
            name,
            least_side=preprocessing.least_side,
            grey_bits=preprocessing.grey_bits,
        )
    except ImageError:
        return None


def _message(scored: Scored, classes: Sequence[str], index: int) -> str:
    row, true = scored.probabilities[index], int(scored.labels[index])
    label = int(row.argmax())
    found, labelled = (f"{show(classes[c])}\u00a0({row[c]:.0%})" for c in (label, true))
    return found if label == true else f"classified as {found}, labelled {labelled}"


Row = Mapping[str, str]


@dataclass(frozen=True)
class Group:
    """Problems of one kind.

    Attributes:
        title: Name of the kind.
        count: Number of problems.
        cards: The first of them.
    """

    title: str
    count: int
    cards: Sequence[Card]


def draw_issues(rows: Sequence[Row], root: Path) -> list[Group]:
    """Show the problems found by a run's data check, the worst first, and count the rest.

    Args:
        rows: Rows of the run's issues.csv.
        root: The data folder; a missing image leaves a gap.

    Returns:
        The kinds of problems that occur.
    """
    groups = [
        _singles(rows, root),
        _pairs(rows, root, "Copies and near-copies in two classes", CONFLICTING),
        _pairs(rows, root, "Copies and near-copies in two splits", LEAK),
        _pairs(rows, root, "Copies and near-copies in a class", DUPLICATE, NEAR, OLD_NEAR),
    ]
    return [group for group in groups if group.count]


def _singles(rows: Iterable[Row], root: Path) -> Group:
    found = [row for row in rows if row.get("problem") in SUSPECTS]  # the most suspect first
    shown = [_issue_card(row, root, row["path"]) for row in found[:_LABELS]]
    return Group("Suspect labels", len(found), shown)


def _pairs(rows: Iterable[Row], root: Path, title: str, *problems: str) -> Group:
    """Show pairs of files; a pair that is listed twice is shown once."""
    found: dict[frozenset[str], tuple[Row, str]] = {}
    for row in rows:
        if row.get("problem") in problems:
            other = _other(row)
            found.setdefault(frozenset((row["path"], other)), (row, other))
    shown = [
        _issue_card(row, root, row["path"], other) for row, other in list(found.values())[:_PAIRS]
    ]
    return Group(title, len(found), shown)


def without_settled(rows: Iterable[Row], images: Iterable[Photo]) -> list[Row]:
    """Leave out the rows that `--fixes` has settled.

    These are about images that it has excluded, about copies of them, and about copies in two
    classes that it has relabelled to one.

    Args:
        rows: Rows of the run's issues.csv.
        images: Those of its split.csv.
    """
    excluded, label_of = set(), {}
    for image in images:
        path = utf8(image.path)
        label_of[path] = image.label
        if image.split == "out" and image.reason.startswith(EXCLUDED):
            excluded.add(path)

    def is_settled(row: Row) -> bool:
        pair = row["path"], _other(row)
        if row.get("problem") == CONFLICTING and label_of.keys() >= {*pair}:
            return not excluded.isdisjoint(pair) or label_of[pair[0]] == label_of[pair[1]]
        return not excluded.isdisjoint(pair)

    return [row for row in rows if not is_settled(row)]


def _other(row: Row) -> str:
    """Return the file that the row's file is identical, or nearly identical, to; empty if none."""
    return row.get("detail", "").partition("identical to ")[2]


def _issue_card(row: Row, root: Path, *paths: str) -> Card:
    return Card(tuple(photo(root, path) for path in paths), row.get("detail", ""), row["path"])
