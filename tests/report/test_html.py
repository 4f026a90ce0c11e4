"""Shared parts of the pages: templates that escape, readable colours, thumbnails."""

import re
from pathlib import Path

import pytest
from images import draw
from jinja2 import UndefinedError
from markupsafe import Markup
from pages import Page, faults_of
from PIL import Image

from xception_cli.check.steps import Steps
from xception_cli.report import html
from xception_cli.report.html import PAGES, SIDE, Card, Thumbnail, embed, photo, render
from xception_cli.report.matrix import STRONG, opacity
from xception_cli.summary.drawing import COLOURS

LIGHT, DARK = 0, 1
TEMPLATES = Path(html.__file__).parent / "templates"

# --- colours --------------------------------------------------------------------------------------


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


def palette(scheme: int) -> dict[str, str]:
    """Read the colours of light or dark pages from the file that defines them."""
    rules = (TEMPLATES / "palette.css").read_text().split("@media screen and (prefers-color-scheme")
    assert len(rules) == 2
    both = [dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", text)) for text in rules]
    assert set(both[LIGHT]) == set(both[DARK])
    return both[scheme]


def test_the_contrast_is_computed_as_in_wcag():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)  # known, just below 4.5


def test_colours_are_defined_only_in_the_palette_and_all_are_used():
    styles = {path.name: path.read_text() for path in TEMPLATES.glob("*.css")}
    assert set(palette(LIGHT)) == {
        name for text in styles.values() for name in re.findall(r"var\(--(\w+)\)", text)
    }
    del styles["palette.css"]
    assert not re.findall(r"#[0-9a-f]{3,6}\b(?!:)", "".join(styles.values()))


@pytest.mark.parametrize("scheme", [LIGHT, DARK])
def test_text_and_shapes_have_enough_contrast(scheme: int):
    of = palette(scheme)
    for text in ("ink", "soft", "stops", "warning", "note"):
        for ground in ("paper", "card"):
            assert contrast(of[text], of[ground]) >= 4.5, (text, ground)
    for shape in ("bar", "right", "wrong"):
        assert contrast(of[shape], of["paper"]) >= 3, shape
    assert contrast(of["bar"], of["card"]) >= 3  # focus, and the bars of serve


def test_the_edge_of_an_image_is_visible_if_image_and_page_are_both_dark_or_white():
    edge = {scheme: palette(scheme)["edge"] for scheme in (LIGHT, DARK)}
    card = {scheme: palette(scheme)["card"] for scheme in (LIGHT, DARK)}
    for scheme, image in ((LIGHT, "#ffffff"), (DARK, "#000000")):
        assert contrast(image, card[scheme]) < 1.4  # without the edge
        assert contrast(edge[scheme], image) >= 2
        assert contrast(edge[scheme], card[scheme]) >= 2


@pytest.mark.parametrize("scheme", [LIGHT, DARK])
@pytest.mark.parametrize("kind", ["right", "wrong"])
def test_the_counts_of_the_confusion_matrix_are_readable_at_any_opacity(scheme: int, kind: str):
    of = palette(scheme)
    for hundredth in range(101):
        depth = opacity(hundredth / 100)
        number = of["strong" if kind == "right" and depth >= STRONG else "count"]
        assert contrast(number, mixed(of[kind], of["card"], depth)) >= 4.5, hundredth


@pytest.mark.parametrize("scheme", [LIGHT, DARK])
def test_frozen_parts_of_the_diagram_are_readable(scheme: int):
    fill = {name: colours[scheme][0] for name, colours in COLOURS.items()}
    boxes = ("convolution", "separable", "pooling", "relu", "linear")
    frozen = [mixed(fill[box], fill["panel"], 0.5) for box in boxes]
    for ground in (fill["paper"], fill["panel"], *(fill[box] for box in boxes), *frozen):
        assert contrast(fill["ink"], ground) >= 4.5
        assert contrast(fill["muted"], ground) >= 4.5, ground


# --- templates ------------------------------------------------------------------------------------

HOSTILE = "<b>\x1b[2J\u202e\"'&amp;{{ 7 * 7 }}\n"
HARMLESS = "<b>\\x1b[2J\\u202e\"'&amp;{{ 7 * 7 }}\\x0a"


def test_text_is_escaped_in_a_page_and_its_attributes_by_default():
    template = PAGES.from_string('<p title="{{ name }}">{{ name }}</p>')
    page = Page(template.render(name=HOSTILE))
    assert page.elements == [("p", {"title": HARMLESS})]
    assert page.texts == [HARMLESS]
    assert template.render(name="x" * 300).count("x") == 400  # 200 each
    bare = PAGES.overlay(autoescape=False).from_string(template_source := "<p>{{ name }}</p>")
    assert Page(bare.render(name=HOSTILE)).of("b")  # the control
    raw = PAGES.overlay(finalize=None).from_string(template_source)
    assert "\x1b" in raw.render(name=HOSTILE)  # and of control characters


def test_undefined_and_unformatted_values_are_errors():
    for template in ("{{ gone }}", "{{ card.gone }}", "{% if gone %}{% endif %}"):
        with pytest.raises(UndefinedError, match="gone"):
            PAGES.from_string(template).render(card=Card((), "", ""))
    for value in (None, 0.1, True, ["a"]):
        with pytest.raises(TypeError, match="text and whole numbers"):
            PAGES.from_string("{{ value }}").render(value=value)
    assert PAGES.from_string("{{ a }} {{ b }}").render(a=1200, b=Markup("<b>")) == "1200 <b>"


def test_no_template_disables_escaping_or_leaves_an_attribute_unquoted():
    for path in TEMPLATES.glob("*.j2"):
        text = path.read_text()
        assert not re.search(r"\|\s*safe\b|autoescape|Markup", text), path.name
        # In a tag, but not in a string of Jinja's own: a value directly after the equals sign.
        assert not re.search(r"=\{\{", text), path.name
        assert not re.search(r"<[^>{]*\son\w+=", text), path.name


def test_an_empty_page_is_valid_and_a_template_without_escaping_is_not(
    monkeypatch: pytest.MonkeyPatch,
):
    values = {"title": HOSTILE, "verdict": HOSTILE, "size": HOSTILE, "splits": [HOSTILE],
        "most": 1, "classes": [{"name": HOSTILE, "counts": [1]}], "curve": None,
        "problems": [], "steps": Steps("", (HOSTILE,), 0, 0, HOSTILE, "")}  # fmt: skip
    text = render("check.html.j2", **values)
    assert [fault for fault in faults_of(text) if "in the text" not in fault] == []
    assert Page(text).texts.count(HARMLESS) == 5  # twice the title
    monkeypatch.setattr(html, "PAGES", PAGES.overlay(autoescape=False))
    assert "</main> closes something else" in faults_of(render("check.html.j2", **values))


def test_a_sentence_begins_with_a_capital_letter_but_names_are_not_changed():
    template = PAGES.from_string("{{ text | capital(names) | sentence }}")
    assert template.render(text="few <b> " + "x" * 300, names=["a"]).startswith("Few &lt;b&gt; xx")
    assert len(template.render(text="few " + "x" * 300, names=["a"])) == 305
    assert template.render(text="few of them", names=["few of"]) == "few of them."


def test_options_and_file_names_break_only_at_slashes_and_spaces():
    macro = PAGES.from_string('{% from "macros.html.j2" import whole %}{{ whole(text) }}')
    shown = macro.render(text="xception --image-size 71 --data '/my data/a-b/c.jpg'")
    assert Page(shown).text == "xception --image-size 71 --data '/my data/a-b/c.jpg'"
    assert re.findall(r'<span class="whole">(.*?)</span>', shown) == [
        "--image-size", "--data", "&#39;/my", "data/", "a-b/", "c.jpg&#39;",
    ]  # fmt: skip
    assert Page(macro.render(text="a/<b>//c\n")).text == "a/<b>//c\\x0a"


def test_a_right_to_left_name_is_kept_apart_from_numbers_except_in_a_command():
    name, apart = "תפח ירק", "\u2068תפח ירק\u2069"
    template = PAGES.from_string(
        '{% from "macros.html.j2" import cards, command %}'
        "{{ text }}|{{ text | sentence }}|{{ command(text) }}|{{ cards(photos) }}"
    )
    photos = [Card((None,), f"{name} (2%)", f"{name}/1.jpg")]
    shown = Page(template.render(text=f"{name} (2%)", photos=photos)).text
    assert shown.startswith(f"{apart} (2%)|{apart} (2%).|{name} (2%)|")
    assert f"{apart} (2%) {apart}/1.jpg" in shown
    plain = template.render(text="a (2%)", photos=[Card((None,), "a (2%)", "a/1.jpg")])
    assert not re.search("[\u2066-\u2069]", plain)


def test_a_caption_may_break_at_the_hyphens_of_a_class_but_not_of_a_path():
    macro = PAGES.from_string('{% from "macros.html.j2" import cards %}{{ cards(photos) }}')
    shown = macro.render(photos=[Card((None,), "labelled a-b (2%)", "a-b/c.jpg")])
    assert re.findall(r'<span class="whole">(.*?)</span>', shown) == ["a-b/", "c.jpg"]
    assert "<b>labelled a-b (2%)</b>" in shown


def test_the_header_of_a_table_is_repeated_on_each_printed_page():
    macro = PAGES.from_string('{% from "macros.html.j2" import header %}{{ header(["a"]) }}')
    assert [name for name, _ in Page(macro.render()).elements] == ["thead", "tr", "th"]


# --- images ---------------------------------------------------------------------------------------


def test_a_thumbnail_is_small_and_named_and_that_of_a_missing_image_is_none():
    name = 'a "name".jpg'
    draw(Path(name), (200, 50, 40), seed=1, size=800)
    shown = photo(Path(), name)
    assert isinstance(shown, Thumbnail)
    assert (shown.name, shown.width, shown.height) == (name, SIDE, SIDE)
    assert shown.address.startswith("data:image/jpeg;base64,")
    assert photo(Path(), "gone.jpg") is None
    assert embed(Image.new("RGB", (8, 8)), "small").width == 8
