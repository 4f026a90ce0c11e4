"""Images on report.html: with heat maps, as the network sees them, and those of issues.csv."""

from collections.abc import Iterable, Mapping, Sequence
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
from xception_cli.report.html import GONE, embed, figure, photo, text
from xception_cli.runtime import seed_everything

_LABELS, _PAIRS = 12, 8  # cards of a kind
_HOW = ("as in evaluation", "as in training", "as in training, drawn again")
_NOTHING = Image.new("RGB", (8, 8))  # stands in a batch for a photo that is gone


def draw_cards(scored: Scored, root: Path, bundle: ModelBundle, chosen: Sequence[int]) -> list[str]:
    """Draw photos with their heat maps and what was said of them, a batch at a time.

    Args:
        scored: The images of an evaluation.
        root: What their paths are relative to; a photo that is gone leaves a gap.
        bundle: The model.
        chosen: Indices into `scored`.

    Returns:
        A `<figure>` for each, in order.
    """
    cards = []
    transform = bundle.preprocessing.evaluation_transform()
    with screen.bar("drawing the report", len(chosen), heartbeat=False) as bar:
        size = bundle.runtime.inference_batch
        for start in range(0, len(chosen), size):
            batch = list(chosen[start : start + size])
            pictures = [
                _read(root / scored.photos[index].path, bundle.preprocessing) for index in batch
            ]
            pixels = torch.stack([transform(picture or _NOTHING) for picture in pictures])
            pixels = bundle.runtime.join_parts([pixels], size)
            heats = heat_maps(bundle, pixels, torch.from_numpy(scored.guesses[batch]))
            for index, picture, heat in zip(batch, pictures, heats, strict=True):
                shown = GONE
                if picture is not None:
                    path = scored.photos[index].path
                    drawn = draw_heat(picture, heat, bundle.preprocessing)
                    shown = embed(picture, path) + embed(drawn, f"heat map of {show(path)}")
                cards.append(_card(scored, bundle.classes, index, shown))
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
) -> str:
    """Draw photos as the network sees them: in evaluation, and in two random views of training.

    Args:
        root: What the paths are relative to; photos that are gone are left out.
        paths: The photos.
        preprocessing: Of the model.
        augment: As in training, as for the following.
        flip: Mirror half of them.
        seed: Of the random views.
    """
    random = preprocessing.training_transform(augment=augment, flip=flip)
    figures = []
    for number, path in enumerate(paths):
        picture = _read(root / path, preprocessing)
        if picture is None:
            continue
        seed_everything(seed, "report", number)
        views = [preprocessing.evaluation_transform()(picture), random(picture), random(picture)]
        pictures = "".join(
            embed(Image.fromarray(view.permute(1, 2, 0).numpy()), f"{show(path)} {how}")
            for view, how in zip(views, _HOW, strict=True)
        )
        figures.append(figure(pictures, text(path)))
    return "".join(figures)


def _read(path: Path, preprocessing: Preprocessing) -> Image.Image | None:
    try:
        return read_picture(path, least_side=preprocessing.least_side)
    except PictureError:
        return None


def _card(scored: Scored, classes: Sequence[str], index: int, pictures: str) -> str:
    row, true = scored.probabilities[index], int(scored.labels[index])
    label = int(row.argmax())
    said = f"{text(classes[label])} {row[label]:.0%}"
    if label != true:
        said += f", labelled {text(classes[true])} ({row[true]:.0%})"
    return figure(pictures, f"<b>{said}</b><br>{text(scored.photos[index].path)}")


Row = Mapping[str, str]


def draw_issues(rows: Sequence[Row], root: Path) -> str:
    """Draw what the data check of a run found, the worst first, and count the rest.

    Args:
        rows: Of the run's issues.csv.
        root: The data folder; a photo that is gone leaves a gap.

    Returns:
        HTML; empty if there is nothing.
    """
    pairs = {
        "The same picture in two classes": _pairs(rows, root, CONFLICTING),
        "The same picture in two splits": _pairs(rows, root, LEAK),
        "The same picture twice in a class": _pairs(rows, root, DUPLICATE, NEAR),
    }
    parts = [_group("Suspect labels", "cards", *_singles(rows, root))]
    parts += [_group(title, "cards wide", *found) for title, found in pairs.items()]
    return "".join(parts)


def _singles(rows: Iterable[Row], root: Path) -> tuple[list[str], int]:
    found = [row for row in rows if row.get("problem") in SUSPECTS]  # the most suspect first
    shown = found[:_LABELS]
    return [_issue_card(row, photo(root / row["path"], row["path"])) for row in shown], len(found)


def _pairs(rows: Iterable[Row], root: Path, *problems: str) -> tuple[list[str], int]:
    """Draw pairs of files; a pair that is told from both sides is one."""
    found: dict[frozenset[str], tuple[Row, str]] = {}
    for row in rows:
        if row.get("problem") in problems:
            # In the words of `xception check`: identical, or nearly identical, to another file.
            other = row.get("detail", "").partition("identical to ")[2]
            found.setdefault(frozenset((row["path"], other)), (row, other))
    cards = [
        _issue_card(row, "".join(photo(root / path, path) for path in (row["path"], other)))
        for row, other in list(found.values())[:_PAIRS]
    ]
    return cards, len(found)


def _issue_card(row: Row, pictures: str) -> str:
    return figure(pictures, f"<b>{text(row.get('detail', ''))}</b><br>{text(row['path'])}")


def _group(title: str, kind: str, cards: Sequence[str], count: int) -> str:
    if not count:
        return ""
    more = f"<p class=more>and {count - len(cards):,} more, in issues.csv</p>\n"
    return (
        f'<h3>{title}: {count:,}</h3>\n<div class="{kind}">{"".join(cards)}</div>\n'
        f"{more if count > len(cards) else ''}"
    )
