"""What the pages share: colours that can be read, gaps for pictures, headings in order."""

import re
from pathlib import Path

import pytest
from images import draw

from xception_cli.report.charts import STRONG, opacity
from xception_cli.report.html import GONE, PALETTE, SIDE, columns, document, embed, photo, scrolling
from xception_cli.summary.diagram import COLOURS

LIGHT, DARK = 0, 1


def luminance(colour: str) -> float:
    """Return the relative luminance, WCAG 2.2."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def mixed(over: str, under: str, opacity: float) -> str:
    pairs = [(int(over[at : at + 2], 16), int(under[at : at + 2], 16)) for at in (1, 3, 5)]
    return "#" + "".join(f"{round(opacity * a + (1 - opacity) * b):02x}" for a, b in pairs)


def test_the_contrast_is_that_of_wcag():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)  # the known near miss


@pytest.mark.parametrize("scheme", [LIGHT, DARK])
def test_text_can_be_read_on_what_it_stands_on_and_bars_can_be_seen(scheme: int):
    of = {name: colours[scheme] for name, colours in PALETTE.items()}
    for text in ("ink", "soft"):
        for ground in ("paper", "card"):
            assert contrast(of[text], of[ground]) >= 4.5, (text, ground)
    for text in ("stops", "warning", "note"):
        assert contrast(of[text], of["paper"]) >= 4.5, text
    for shape in ("bar", "right", "wrong"):
        assert contrast(of[shape], of["paper"]) >= 3, shape


@pytest.mark.parametrize("scheme", [LIGHT, DARK])
@pytest.mark.parametrize("kind", ["right", "wrong"])
def test_the_counts_of_the_confusion_matrix_can_be_read_at_any_depth(scheme: int, kind: str):
    of = {name: colours[scheme] for name, colours in PALETTE.items()}
    for hundredth in range(101):
        depth = opacity(hundredth / 100)
        number = of["strong" if kind == "right" and depth >= STRONG else "count"]
        assert contrast(number, mixed(of[kind], of["card"], depth)) >= 4.5, hundredth


@pytest.mark.parametrize("scheme", [LIGHT, DARK])
def test_the_diagram_can_be_read_where_parts_are_frozen_too(scheme: int):
    fill = {name: colours[scheme][0] for name, colours in COLOURS.items()}
    boxes = ("convolution", "separable", "pooling", "linear")
    frozen = [mixed(fill[box], fill["panel"], 0.5) for box in boxes]
    for ground in (fill["paper"], fill["panel"], *(fill[box] for box in boxes), *frozen):
        assert contrast(fill["ink"], ground) >= 4.5
        assert contrast(fill["muted"], ground) >= 4.5, ground


def test_the_document_runs_and_loads_nothing_and_has_names_as_text():
    page = document("<b>\x1b", "<p>body</p>", ".more {}")
    assert page.count("&lt;b&gt;\\x1b") == 2
    assert "default-src 'none'" in page
    assert page.index("--ink: #1c1e21") < page.index("prefers-color-scheme: dark")
    assert re.search(r"<main>\n<h1>.*</h1>\n<p>body</p></main>", page)
    assert columns("<i>", "b") == "<tr><th scope=col>&lt;i&gt;</th><th scope=col>b</th></tr>\n"
    assert 'tabindex=0 aria-label="a &amp; b"' in scrolling("a & b", "")


def test_a_picture_is_small_and_named_and_one_that_is_gone_leaves_a_gap():
    draw(Path("a.jpg"), (200, 50, 40), seed=1, size=800)
    shown = photo(Path("a.jpg"), 'a "name"')
    assert f"width={SIDE} height={SIDE}" in shown
    assert 'alt="a &quot;name&quot;"' in shown
    assert photo(Path("gone.jpg"), "gone") == GONE
    from PIL import Image

    assert "width=8 height=8" in embed(Image.new("RGB", (8, 8)), "small")
