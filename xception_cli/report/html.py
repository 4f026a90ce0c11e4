"""What our pages share: the document, its colours, and small pictures that stand inside it."""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image

from xception_cli.console import screen, show
from xception_cli.data.fixes import CONFLICTING, DUPLICATE, LEAK, NEAR, SUSPECTS
from xception_cli.data.images import PictureError, read_picture
from xception_cli.data.transforms import Preprocessing
from xception_cli.evaluation.explain import draw_heat, heat_maps
from xception_cli.evaluation.scored import Scored
from xception_cli.model.bundle import ModelBundle
from xception_cli.runtime import seed_everything

# Of each name the colour on light and on dark paper; tests/report/test_html.py computes the contrasts.
PALETTE: Mapping[str, tuple[str, str]] = {
    "ink": ("#1c1e21", "#e8eaed"),
    "soft": ("#5a616b", "#a3a9b1"),
    "paper": ("#ffffff", "#16181b"),
    "card": ("#f4f5f7", "#212429"),
    "line": ("#dde0e4", "#34383e"),
    "bar": ("#5b8ed6", "#4f7fc4"),
    "right": ("#2b6cb0", "#2f74b8"),
    "wrong": ("#d9620f", "#b8500a"),
    "stops": ("#b3261e", "#ff8a80"),
    "warning": ("#8a5a00", "#f0b95a"),
    "note": ("#2b5fa8", "#8fb6f5"),
    "count": ("#000000", "#ffffff"),  # a number on a coloured cell
    "strong": ("#ffffff", "#ffffff"),  # and on a deeply coloured one
}

SIDE = 192  # of a picture on a page, in pixels
GONE = "<span class=none>no picture</span>"

# Nothing is loaded and nothing is run, whatever a name holds.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def document(title: str, body: str, style: str = "") -> str:
    """Make a page: one file without a script, that loads nothing.

    Args:
        title: Untrusted text, also its first heading.
        body: HTML.
        style: Rules of this page beside the common ones.
    """
    return (
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{text(title)}</title>\n<style>{_palette()}{_STYLE}{style}</style></head>\n"
        f"<body><main>\n<h1>{text(title)}</h1>\n{body}</main></body></html>\n"
    )


def text(text: object) -> str:
    """Make untrusted text a short, literal piece of a page."""
    return escape(show(text))


def photo(path: Path, name: str) -> str:
    """Put a picture file on the page; of one that cannot be read a gap is left.

    Args:
        path: Of the file.
        name: Of the picture, for those who cannot see it.
    """
    try:
        return embed(read_picture(path, least_side=SIDE), name)
    except PictureError:
        return GONE


def embed(picture: Image.Image, name: str) -> str:
    """Put a picture on the page, small."""
    small = picture.copy()
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    small.save(buffer, "JPEG", quality=80)
    data = b64encode(buffer.getvalue()).decode()
    return (
        f'<img src="data:image/jpeg;base64,{data}" alt="{text(name)}" '
        f"width={small.width} height={small.height}>"
    )


def figure(pictures: str, caption: str) -> str:
    """Set pictures beside each other over their caption, both HTML."""
    return (
        f"<figure><div class=pictures>{pictures}</div>\n"
        f"<figcaption>{caption}</figcaption></figure>\n"
    )


def scrolling(name: str, inside: str) -> str:
    """Let what is wider than a phone be moved sideways, with the keyboard too."""
    return f'<div class=scroll role=region tabindex=0 aria-label="{text(name)}">{inside}</div>\n'


def columns(*names: str) -> str:
    """Make the first row of a table."""
    return f"<tr>{''.join(f'<th scope=col>{text(name)}</th>' for name in names)}</tr>\n"


def _palette() -> str:
    light, dark = (
        "".join(f"--{name}: {colours[at]}; " for name, colours in PALETTE.items()) for at in (0, 1)
    )
    return (
        f":root {{ color-scheme: light dark; {light}}}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {dark}}} }}"
    )


_STYLE = """
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif;
  overflow-wrap: anywhere; }
main { margin: 0 auto; max-width: 72rem; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.5rem; line-height: 1.2; margin: 0 0 .6rem; }
h2 { font-size: 1.15rem; margin: 0 0 .4rem; }
h3 { font-size: 1rem; margin: 1rem 0 .3rem; }
p { margin: 0 0 .7rem; max-width: 65ch; }
section { border-top: 1px solid var(--line); margin-top: 1.7rem; padding-top: 1.1rem; }
code { font-size: .9em; background: var(--card); border-radius: .25rem; padding: .05rem .3rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 500; padding: .15rem 1rem .15rem 0; vertical-align: top; }
th[scope=col] { color: var(--soft); font-size: .85rem; }
td { padding: .15rem 1rem .15rem 0; }
.bar { display: inline-block; height: .7rem; background: var(--bar); border-radius: 2px;
  min-width: 1px; print-color-adjust: exact; }
.cards { display: grid; gap: .8rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(10rem, 100%), 1fr)); }
.wide { grid-template-columns: repeat(auto-fill, minmax(min(17rem, 100%), 1fr)); }
figure { margin: 0; background: var(--card); border-radius: .5rem; overflow: hidden;
  break-inside: avoid; }
.pictures { display: flex; gap: 2px; }
.pictures > * { flex: 1 1 0; min-width: 0; height: 9rem; object-fit: contain; width: auto; }
.pictures > .none { height: auto; padding: .5rem .7rem 0; color: var(--soft); font-size: .85rem; }
figcaption { padding: .5rem .7rem .7rem; font-size: .85rem; color: var(--soft); line-height: 1.35; }
figcaption b { color: var(--ink); font-weight: 600; }
.scroll { overflow-x: auto; margin-bottom: 1rem; }
.more { color: var(--soft); margin-top: .6rem; }
@media print { .scroll { overflow: visible; } tr { break-inside: avoid; }
  h2, h3, section > p { break-after: avoid; } p { break-inside: avoid; } }
"""

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


_LABELS, _PAIRS = 12, 8  # cards of a kind

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
