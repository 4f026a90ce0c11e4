"""A page as a browser reads it: its elements, its text, and its faults."""

import re
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

VOID = {"meta", "br", "img", "input", "link"}  # elements without an end
INLINE = {"span", "b", "code", "a"}  # those within a word or a line
ACTIVE = {"script", "iframe", "link", "object", "embed", "form", "base", "foreignobject"}


class Page(HTMLParser):
    """The elements, attributes and text of a page.

    Attributes:
        elements: Names and attributes, in order.
        texts: Pieces of text between tags, without surrounding spaces.
        faults: Tags that do not match.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, Any]]] = []
        self.texts: list[str] = []
        self.faults: list[str] = []
        self._open: list[str] = []
        self._pieces: list[str] = []
        self.feed(text)
        self.close()
        self.faults += [f"{tag} is not closed" for tag in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        if len(names) != len(set(names)):
            self.faults.append(f"{tag} has an attribute twice")
        self.elements.append((tag, dict(attrs)))
        self._space(tag)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.faults.append(f"</{tag}> closes something else")
        self._space(tag)

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self._pieces.append(data)
            self.texts.append(data.strip())

    def _space(self, tag: str) -> None:
        if tag not in INLINE:
            self._pieces.append(" ")

    @property
    def text(self) -> str:
        """All text, with single spaces."""
        return re.sub(r"\s+", " ", "".join(self._pieces)).strip()

    def of(self, tag: str) -> list[dict[str, Any]]:
        """Return the attributes of each element of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]


def faults_of(text: str) -> list[str]:
    """List the faults of a page, independently of its content.

    It is well-formed, runs and loads nothing, has no remains of a template, no control or
    bidirectional characters, headings in order, a description for each image, a scope for each
    header, unique identifiers, and a name for each region that scrolls.
    """
    page = Page(text)
    faults = list(page.faults)
    names = {name for name, _ in page.elements}
    faults += [f"<{name}>" for name in sorted(names & ACTIVE)]
    for name, attributes in page.elements:
        faults += [f"{name} {attribute}" for attribute in attributes if attribute.startswith("on")]
        if name == "a" and attributes == {"href": "issues.csv"}:
            continue  # the one link of our pages: to the file beside them
        for attribute in ("src", "href", "xlink:href"):
            if not attributes.get(attribute, "data:image/").startswith("data:image/"):
                faults.append(f"{name} loads {attributes[attribute]}")
    policy = {"http-equiv": "Content-Security-Policy",
        "content": "default-src 'none'; img-src data:; style-src 'unsafe-inline'"}  # fmt: skip
    if policy not in page.of("meta"):
        faults.append("no Content-Security-Policy")
    faults += [f"{piece!r} in the text" for piece in ("{{", "}}", "{%", "{#") if piece in page.text]
    faults += [f"{char!r}" for char in sorted(set(re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f"
        "\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]", text)))]  # fmt: skip
    faults += [f"{word} in the styles" for word in ("url(", "@import") if word in text]
    levels = [int(name[1]) for name, _ in page.elements if re.fullmatch(r"h[1-6]", name)]
    if levels.count(1) != 1 or any(after > before + 1 for before, after in pairwise([0, *levels])):
        faults.append(f"headings {levels}")
    faults += [f"img without alt: {img}" for img in page.of("img") if not img.get("alt")]
    titled = len(re.findall(r"<svg[^>]*(?: aria-label=\"[^\"]|>\n<title>)", text))
    if titled != len(page.of("svg")) or any(svg["role"] != "img" for svg in page.of("svg")):
        faults.append("svg without a description")
    if any(cell.get("scope") not in {"row", "col"} for cell in page.of("th")):
        faults.append("th without scope")
    identifiers = [a["id"] for _, a in page.elements if "id" in a]
    if len(identifiers) != len(set(identifiers)):
        faults.append("an id twice")
    for region in (a for a in page.of("div") if "scroll" in a.get("class", "").split()):
        if region.get("tabindex") != "0" or not region.get("aria-label"):
            faults.append("a region that scrolls without a name, or not by keyboard")
    return faults
