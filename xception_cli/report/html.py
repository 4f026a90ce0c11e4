"""What our pages share: the document, its colours, and small pictures that stand inside it."""

from base64 import b64encode
from collections.abc import Mapping
from html import escape
from io import BytesIO
from pathlib import Path

from PIL import Image

from xception_cli.console import show
from xception_cli.data.images import PictureError, read_picture

# Of each name the colour on light and on dark paper; tests/report/test_html.py checks contrasts.
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
