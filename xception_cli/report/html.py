"""The templates of our pages, in which all text is escaped; and images small enough to embed."""

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from xception_cli.console import safe, show
from xception_cli.data.images import PictureError, read_listed

SIDE = 192  # of an image on a page, in pixels


@dataclass(frozen=True)
class Thumbnail:
    """An image inside the page.

    Attributes:
        address: A `data:` address, which holds the file.
        name: Describes it to readers who cannot see it.
        width: In pixels.
        height: In pixels.
    """

    address: Markup
    name: str
    width: int
    height: int


@dataclass(frozen=True)
class Card:
    """One image, or a few to compare, with one message.

    Attributes:
        images: None where a file could not be read.
        message: What the images show; empty for none.
        path: Of the file that it is about.
        action: What is suggested for it, as in issues.csv.
    """

    images: tuple[Thumbnail | None, ...]
    message: str
    path: str
    action: str = ""


def render(template: str, **values: object) -> str:
    """Fill in a template: one page without a script, that loads nothing.

    Args:
        template: Its file name.
        values: What it names. Text is untrusted; what must not be escaped is `Markup`.

    Raises:
        UndefinedError: The template names a value that was not given.
    """
    return PAGES.get_template(template).render(values)


def _printable(value: object) -> object:
    """Make what a template prints a short, literal piece of text; `Markup` is printed as it is.

    Raises:
        TypeError: It is neither text nor a whole number: a template does not format numbers.
    """
    if isinstance(value, Markup):
        return value
    if isinstance(value, str):
        return show(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise TypeError(f"a page prints text and whole numbers, not {value}")


def _capital(text: str, names: Sequence[str] = ()) -> str:
    """Begin with a capital letter, unless that is the first one of a name."""
    if any(text.startswith(show(name)) for name in names):
        return text
    return text[:1].upper() + text[1:]


def _sentence(text: str) -> Markup:
    """Print a message of ours whole, however long, though it holds names; with a full stop."""
    return escape(f"{safe(text)}.")


def _pieces(text: str) -> list[list[str]]:
    """Split text into words, and these into pieces that end with a slash, to be kept whole.

    However long it is: a command that lost its end, or a message its second name, would be wrong.
    """
    return [re.findall("^'?/?[^/]*/?|[^/]+/?|/", word) for word in safe(text).split(" ")]


def _count(number: int) -> str:
    return f"{number:,}"


PAGES = Environment(
    loader=PackageLoader("xception_cli.report"),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_printable,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
PAGES.filters |= {"capital": _capital, "count": _count, "pieces": _pieces, "sentence": _sentence}


def photo(root: Path, name: str) -> Thumbnail | None:
    """Read an image file for a page; None if it cannot be read, or is not in the folder.

    Args:
        root: The data folder.
        name: Of the image in it; also for readers who cannot see it.
    """
    try:
        return embed(read_listed(root, name, least_side=SIDE, grey_bits=None), name)
    except PictureError:
        return None


def embed(image: Image.Image, name: str, side: int = SIDE) -> Thumbnail:
    """Make an image small, and part of the page.

    Args:
        image: RGB.
        name: Describes it.
        side: It has at most so many pixels across and down.
    """
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    small.save(buffer, "JPEG", quality=80)
    data = b64encode(buffer.getvalue()).decode("ascii")
    return Thumbnail(Markup(f"data:image/jpeg;base64,{data}"), name, small.width, small.height)
