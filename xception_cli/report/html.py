"""The templates of the HTML pages, with all text escaped; and thumbnails to embed."""

import re
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from xception_cli.console import safe, show
from xception_cli.data.images import ImageError, read_listed

SIDE = 192  # of a thumbnail, in pixels
_RIGHT_TO_LEFT = "\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc"  # Hebrew, Arabic and their neighbours
_NAME = re.compile(f"[{_RIGHT_TO_LEFT}](?:[{_RIGHT_TO_LEFT} ]*[{_RIGHT_TO_LEFT}])?")
_ISOLATE, _END = "\u2068", "\u2069"


@dataclass(frozen=True)
class Thumbnail:
    """An embedded image.

    Attributes:
        address: A `data:` URL that contains the file.
        name: Alternative text.
        width: Width in pixels.
        height: Height in pixels.
    """

    address: Markup
    name: str
    width: int
    height: int


@dataclass(frozen=True)
class Card:
    """One image, or several to compare, with a message.

    Attributes:
        images: Images; None for a file that could not be read.
        message: Describes the images; may be empty.
        path: Path of the file in question.
        action: Suggested action, as in issues.csv.
    """

    images: tuple[Thumbnail | None, ...]
    message: str
    path: str
    action: str = ""


def render(template: str, **values: object) -> str:
    """Render a template to one page without scripts and external resources.

    Args:
        template: File name of the template.
        values: Its variables. Text is untrusted; `Markup` is not escaped.

    Raises:
        UndefinedError: The template uses a value that was not given.
    """
    return PAGES.get_template(template).render(values)


def create_environment(literal: Callable[[str], str], *, autoescape: bool) -> Environment:
    """Create the environment of templates, which print short, literal texts and whole numbers.

    Args:
        literal: Shortens an untrusted text, and escapes what has a meaning in this kind of page;
            `Markup` is printed unchanged.
        autoescape: Whether printed texts are also escaped as HTML.
    """

    def printable(value: object) -> object:
        if isinstance(value, Markup):
            return value
        if isinstance(value, str):
            return literal(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        raise TypeError(f"a page prints text and whole numbers, not {value}")

    return Environment(
        loader=PackageLoader("xception_cli.report"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        finalize=printable,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _capital(text: str, names: Sequence[str] = ()) -> str:
    """Capitalise the first letter, unless it belongs to a name."""
    if any(text.startswith(show(name)) for name in names):
        return text
    return text[:1].upper() + text[1:]


def _sentence(text: str) -> Markup:
    """Print a message of ours in full, with a full stop; it may contain names."""
    return escape(f"{_isolate(safe(text))}.")


def _isolate(text: str) -> str:
    """Mark right-to-left names, or a browser would move the numbers next to them."""
    return _NAME.sub(rf"{_ISOLATE}\g<0>{_END}", text)


def _flowing(text: str) -> Markup:
    """Print a caption in full; empty if it has paths, whose pieces are to stay whole.

    The pieces of a right-to-left path would be shown in the wrong order.
    """
    flows = "/" not in text or _NAME.search(text)
    return escape(_isolate(_line(text))) if flows else Markup()


def _line(text: str) -> str:
    """Make a text safe, on one line; unlike `show`, it is never cut."""
    return safe(text).replace("\n", "\\x0a")


def _pieces(text: str) -> list[list[Markup]]:
    """Split text into words, and these into pieces that end with a slash and stay whole.

    Text is never cut: a command without its end, or a message without a name, would be wrong. It
    may be copied from the page, so nothing is added to it.
    """
    words = (re.findall("^'?/?[^/]*/?|[^/]+/?|/", word) for word in _line(text).split(" "))
    return [[escape(piece) for piece in word] for word in words]


def _count(number: int) -> str:
    return f"{number:,}"


PAGES = create_environment(lambda text: _isolate(show(text)), autoescape=True)
PAGES.filters |= {
    "capital": _capital,
    "count": _count,
    "flowing": _flowing,
    "pieces": _pieces,
    "sentence": _sentence,
}


def photo(root: Path, name: str) -> Thumbnail | None:
    """Read an image file as a thumbnail; None if it cannot be read, or is outside of the folder.

    Args:
        root: The data folder.
        name: Path in the folder; also the alternative text.
    """
    try:
        return embed(read_listed(root, name, least_side=SIDE, grey_bits=None), name)
    except ImageError:
        return None


def embed(image: Image.Image, name: str, side: int = SIDE) -> Thumbnail:
    """Shrink an image, and embed it in the page.

    Args:
        image: RGB.
        name: Alternative text.
        side: Largest width and height in pixels.
    """
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    small.save(buffer, "JPEG", quality=80)
    data = b64encode(buffer.getvalue()).decode("ascii")
    return Thumbnail(Markup(f"data:image/jpeg;base64,{data}"), name, small.width, small.height)
