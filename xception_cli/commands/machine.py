"""weights, cache, configs and env: what is on this machine."""

import json
from pathlib import Path
from typing import Annotated

import typer

from xception_cli.commands.complete import choices
from xception_cli.commands.options import Json
from xception_cli.console import emit, new_table, quoted, say, show
from xception_cli.files import cache_folder, utf8
from xception_cli.numerals import count_of
from xception_cli.recipes import copy_recipe, find_recipe, list_recipes, title

# xception weights


def weights_list(as_json: Json = False) -> None:
    """List the sources of the ImageNet weights, in the order in which they are tried."""
    from xception_cli.model.published import SOURCES
    from xception_cli.model.weights import cache_path, is_cached

    cache = cache_path()
    if as_json:
        listed = [source.to_dict() for source in SOURCES]
        emit(json.dumps({"cache": utf8(str(cache)), "sources": listed}))
        return
    emit(f"1. the cache\n   where     {show(cache)}")
    for number, source in enumerate(SOURCES, start=2):
        emit(
            f"{number}. {source.name}\n   where     {source.origin}\n"
            f"   accepted  {source.pinned}\n   licence   {source.licence}"
        )
    say(f"next: xception weights {'verify' if is_cached() else 'fetch'}")


def weights_fetch() -> None:
    """Download the ImageNet weights into the cache."""
    from xception_cli.model.weights import fetch

    emit(str(fetch()))


def weights_verify(as_json: Json = False) -> None:
    """Verify the digest of the cached weights."""
    from xception_cli.model.weights import PINNED_DIGEST, verify

    path = str(verify())
    emit(json.dumps({"path": utf8(path), "digest": PINNED_DIGEST}) if as_json else path)


# xception cache


def cache_ls(as_json: Json = False) -> None:
    """List the contents of the cache by kind."""
    from xception_cli.cache import KINDS, list_cache

    folder, contents = cache_folder(), list_cache()
    if as_json:
        listed = [content.to_dict() for content in contents]
        emit(json.dumps({"folder": utf8(str(folder)), "kinds": listed}))
    else:
        table = new_table("kind", "what", ">files", ">size")
        for one in contents:
            size = f"{one.size / 1e6:,.1f} MB"
            table.add_row(one.kind, KINDS[one.kind], f"{one.files:,}", size)
        emit(table)
    say(f"cache     {show(folder)}")
    say("next: xception cache clear (keeps the weights)")


def cache_clear(
    kinds: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KIND...",
            help="weights, scans or features. Default: scans and features.",
            autocompletion=choices(("weights", "scans", "features")),
        ),
    ] = None,
) -> None:
    """Clear the cache; its contents are computed or downloaded again when needed."""
    from xception_cli.cache import COMPUTED, clear_cache

    for content in clear_cache(kinds or COMPUTED):
        files = count_of(content.files, "file")
        say(f"removed   {content.kind}: {files}, {content.size / 1e6:,.1f} MB")
    say("next: xception cache ls")


# xception configs

Recipe = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="Name of a recipe, see configs ls.",
        autocompletion=choices(tuple(list_recipes())),
    ),
]


def configs_ls(as_json: Json = False) -> None:
    """List the shipped recipes."""
    recipes = list_recipes()
    if as_json:
        listed = [
            {"name": name, "title": title(path), "path": utf8(str(path))}
            for name, path in recipes.items()
        ]
        emit(json.dumps({"recipes": listed}))
    else:
        table = new_table("name", "what it does")
        table.show_header = False
        for name, path in recipes.items():
            table.add_row(name, title(path))
        emit(table)
    say("next: xception train DIR --config NAME")


def configs_show(name: Recipe) -> None:
    """Print a recipe."""
    emit(find_recipe(name).read_text(encoding="utf-8").rstrip())
    say(f"next: xception train DIR --config {name}")


def configs_cp(
    name: Recipe,
    to: Annotated[Path, typer.Argument(metavar="FILE|DIR", help="New file, or folder.")] = Path(),
) -> None:
    """Copy a recipe, to edit it."""
    copied = copy_recipe(name, to)
    emit(str(copied))
    say(f"next: xception train DIR --config {quoted(copied)}")


# xception env


def env(as_json: Json = False) -> None:
    """Print versions and devices, to paste into a bug report."""
    from xception_cli.environment import read_environment

    found = read_environment()
    if as_json:
        emit(json.dumps(found.to_dict()))
    else:
        for name, value in found.rows():
            emit(f"{name:15} {value}")
