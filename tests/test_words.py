"""The words of the product: no help, message, page or document uses one of the words to avoid."""

import ast
import io
import itertools
import re
import tokenize
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from xception_cli.cli import app

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "xception_cli"

# What to avoid, as a regular expression, and what to write instead.
WORDS = {
    r"dear(er|est)?|cheap(er|est|ly)?": "expensive, slow, inexpensive",
    r"behind (the|an?|each|every) (last )?(epoch|iteration|cut)s?": "after",
    r"told": "reported, printed, warned",
    r"(cannot|could not|to|can) be had": "obtained",
    r"mend(s|ed|ing)?|put(s|ting)? right": "fix",
    r"(go|goes|going|went|gone) on with": "resume, continue",
    r"looked at": "checked, scanned",
    r"left alone": "ignored, unchanged",
    r"worth nothing|(brings?|brought) nothing": "useless, no improvement",
    r"what (of it|is known of)": "which, known facts about",
    r"in doubt|doubtful": "suspect",
    r"taken for": "confused with",
    r"named right": "classified correctly",
    r"the surest|least sure": "most confident, least confident",
    r"nobody|somebody": "the noun",
    r"belongs? together": "images of one group",
    r"how (sure|right)": "confidence, accuracy",
    r"certainty": "confidence, calibration",
    r"has \d+(\.\d+)? ?[kMG]B": "is 92 MB",
    r"till|besides": "until, in addition",
    # Not the name of a table in SQL.
    r"(?<!EXISTS )(?<!FROM )(?<!INTO )pictures?(?! \(path)": "image",
}
AVOIDED = {re.compile(rf"\b({words})\b", re.IGNORECASE): better for words, better in WORDS.items()}
AVOIDED[re.compile(r"\d %(?!\})")] = "92.1%, without a space"  # `1 %}` ends a tag of a template


def found_in(text: str, place: str) -> list[str]:
    """List the words to avoid in a text, with their place and line."""
    return [
        f"{place}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]!r}, write {better}"
        for pattern, better in AVOIDED.items()
        for match in pattern.finditer(text)
    ]


def helps(command: Any, name: str) -> Iterator[tuple[str, str]]:
    """Yield the help texts of a command, its options and its subcommands."""
    yield name, command.help or ""
    for parameter in command.params:
        yield f"{name} {parameter.opts[-1]}", getattr(parameter, "help", None) or ""
    for inner in getattr(command, "commands", {}).values():
        yield from helps(inner, f"{name} {inner.name}")


def literals(source: str) -> Iterator[tuple[int, str]]:
    """Yield strings, docstrings and comments with the number of their line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):  # a value may be a number: `0 %`
            parts = (getattr(part, "value", "") for part in node.values)
            yield node.lineno, "".join(part if isinstance(part, str) else "0" for part in parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.value in {"pictures", "doubtful label"}:  # names in users' files
                continue
            yield node.lineno, node.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def in_package() -> Iterator[str]:
    for path in sorted(PACKAGE.rglob("*.py")):
        for line, text in literals(path.read_text(encoding="utf-8")):
            yield from found_in("\n" * (line - 1) + text, path.relative_to(ROOT).as_posix())


def in_files(*patterns: str) -> Iterator[str]:
    for path in sorted(path for pattern in patterns for path in ROOT.glob(pattern)):
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".md":  # names of files and of the API are code
            text = re.sub(r"(?<!`)`[^`\n]+`(?!`)", "", text)
        yield from found_in(text, path.relative_to(ROOT).as_posix())


SOURCES = {
    "help": lambda: (
        found
        for name, text in helps(typing.cast("Any", typer.main.get_command(app)), "xception")
        for found in found_in(text, name)
    ),
    "package": in_package,
    "templates": lambda: in_files("xception_cli/report/templates/*.j2"),
    "README": lambda: in_files("README.md"),
    "docs": lambda: in_files("docs/**/*.md"),
    "configs": lambda: in_files("configs/*.toml"),
}


@pytest.mark.parametrize("source", SOURCES)
def test_no_text_has_a_word_to_avoid(source: str) -> None:
    assert sorted(set(SOURCES[source]())) == []


# "1 images" is avoided by `count_of`. Not classes: there are always two.
COUNTED = re.compile(r" (images|epochs|threads|files|rows|groups|views|cells|columns|tensors)\b")


def uncounted(source: str) -> list[str]:
    """List the f-strings that write a number before a plural noun by themselves."""
    joined = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.JoinedStr)]
    return [
        f"line {number.lineno}: {ast.unparse(number)}{text.value}"
        for node in joined
        for number, text in itertools.pairwise(node.values)
        if isinstance(number, ast.FormattedValue)
        and isinstance(text, ast.Constant)
        and COUNTED.match(str(text.value))
        and not ast.unparse(number.value).isupper()  # a constant
        and not (isinstance(number.value, ast.Call) and ast.unparse(number.value.func) != "len")
    ]


def test_a_number_before_a_noun_is_written_by_count_of() -> None:
    found = {
        path.relative_to(ROOT).as_posix(): wrong
        for path in sorted(PACKAGE.rglob("*.py"))
        if (wrong := uncounted(path.read_text(encoding="utf-8")))
    }
    assert found == {}
    wrong = ['f"{len(x):,} images"', 'f"of {n}" " epochs"']
    assert [len(uncounted(text)) for text in [*wrong, 'f"{FEW} images"', 'f"{n} is"']] == [
        1,
        1,
        0,
        0,
    ]


def test_a_word_to_avoid_is_found_with_its_line_and_other_words_are_not() -> None:
    text = "an image\nPictures that belong together, behind the last epoch: 92.1 %"
    assert [found.split(", write")[0] for found in found_in(text, "x")] == [
        "x:2: 'behind the last epoch'",
        "x:2: 'belong together'",
        "x:2: 'Pictures'",
        "x:2: '1 %'",
    ]
    (line, words), *_ = literals('\nf"{share} %"')
    assert found_in(words, f"line {line}") == ["line 2:1: '0 %', write 92.1%, without a space"]
    good = "92.1% of the images; stillness, dearth and pictureless {% if n > 1 %} until the end"
    assert found_in(good, "x") == []
