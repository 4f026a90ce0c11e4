"""Images on report.html: with heat maps, as the network sees them, and those of issues.csv."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from xception_cli.check.report import CONFLICTING, DUPLICATE, LEAK, NEAR, SUSPECTS
from xception_cli.console import screen, show
from xception_cli.data.images import PictureError, read_picture
from xception_cli.data.transforms import Preprocessing
from xception_cli.evaluation.explain import draw_heat, heat_maps
from xception_cli.evaluation.scored import Scored
from xception_cli.model.bundle import ModelBundle
from xception_cli.report.html import Card, Thumbnail, embed, photo
from xception_cli.runtime import seed_everything

_LABELS, _PAIRS = 12, 8  # cards of a kind
_HOW = ("as in evaluation", "as in training", "as in training, drawn again")
_NOTHING = Image.new("RGB", (8, 8))  # stands in a batch for an image that is gone


def draw_cards(
    scored: Scored, root: Path, bundle: ModelBundle, chosen: Sequence[int]
) -> list[Card]:
    """Show images with their heat maps and predictions, computed in batches.

    Args:
        scored: The images of an evaluation.
        root: What their paths are relative to; an image that is gone leaves a gap.
        bundle: The model.
        chosen: Indices into `scored`.

    Returns:
        A card for each, in order.
    """
    cards = []
    transform = bundle.preprocessing.evaluation_transform()
    with screen.bar("drawing the report", len(chosen), heartbeat=False) as bar:
        size = bundle.runtime.inference_batch
        for start in range(0, len(chosen), size):
            batch = list(chosen[start : start + size])
            images = [
                _read(root / scored.photos[index].path, bundle.preprocessing) for index in batch
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
) -> list[Card]:
    """Show images as the network sees them: in evaluation, and in two random views of training.

    Args:
        root: What the paths are relative to; images that are gone are left out.
        paths: The images.
        preprocessing: Of the model.
        augment: As in training, as for the following.
        flip: Mirror half of them.
        seed: Of the random views.
    """
    random = preprocessing.training_transform(augment=augment, flip=flip)
    cards = []
    for number, path in enumerate(paths):
        image = _read(root / path, preprocessing)
        if image is None:
            continue
        seed_everything(seed, "report", number)
        views = [preprocessing.evaluation_transform()(image), random(image), random(image)]
        thumbnails = tuple(
            embed(Image.fromarray(view.permute(1, 2, 0).numpy()), f"{show(path)} {how}")
            for view, how in zip(views, _HOW, strict=True)
        )
        cards.append(Card(thumbnails, "", path))
    return cards


def _read(path: Path, preprocessing: Preprocessing) -> Image.Image | None:
    try:
        return read_picture(path, least_side=preprocessing.least_side)
    except PictureError:
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
        title: Names the kind.
        count: How many there are.
        cards: The first of them.
    """

    title: str
    count: int
    cards: Sequence[Card]


def draw_issues(rows: Sequence[Row], root: Path) -> list[Group]:
    """Show what the data check of a run found, the worst first, and count the rest.

    Args:
        rows: Of the run's issues.csv.
        root: The data folder; an image that is gone leaves a gap.

    Returns:
        The kinds of problems of which there are any.
    """
    groups = [
        _singles(rows, root),
        _pairs(rows, root, "The same image in two classes", CONFLICTING),
        _pairs(rows, root, "The same image in two splits", LEAK),
        _pairs(rows, root, "The same image twice in a class", DUPLICATE, NEAR),
    ]
    return [group for group in groups if group.count]


def _singles(rows: Iterable[Row], root: Path) -> Group:
    found = [row for row in rows if row.get("problem") in SUSPECTS]  # the most suspect first
    shown = [_issue_card(row, root, row["path"]) for row in found[:_LABELS]]
    return Group("Suspect labels", len(found), shown)


def _pairs(rows: Iterable[Row], root: Path, title: str, *problems: str) -> Group:
    """Show pairs of files; a pair that is listed from both sides is one."""
    found: dict[frozenset[str], tuple[Row, str]] = {}
    for row in rows:
        if row.get("problem") in problems:
            # In the words of `xception check`: identical, or nearly identical, to another file.
            other = row.get("detail", "").partition("identical to ")[2]
            found.setdefault(frozenset((row["path"], other)), (row, other))
    shown = [
        _issue_card(row, root, row["path"], other) for row, other in list(found.values())[:_PAIRS]
    ]
    return Group(title, len(found), shown)


def _issue_card(row: Row, root: Path, *paths: str) -> Card:
    return Card(
        tuple(photo(root / path, path) for path in paths), row.get("detail", ""), row["path"]
    )
