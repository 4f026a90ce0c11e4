"""Usage: errors of a command line, in our words instead of Typer's or pydantic's."""

import os
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import typer

from xception_cli.console import enumerated, quoted, show
from xception_cli.errors import UsageError
from xception_cli.numerals import span, without_separators
from xception_cli.suggestions import did_you_mean, nearest, same
from xception_cli.synonyms import COMMANDS, OPTIONS

# The base of Typer's errors of the command line; its own module for it changed its name in 0.29.
TypersError: type[Exception] = typer.BadParameter.__mro__[2]

_IMAGES = {"data", "paths"}  # arguments that are images
_MOST_WORDS = 9  # in a path with spaces
_KINDS = {"int": "a whole number", "float": "a number"}


def flag_of(option: Any) -> str:
    """Return the name of an option or argument as typed."""
    names: list[str] = option.opts
    return max(names, key=len) if names[0].startswith("-") else str(option.metavar or option.name)


def _flags(command: Any, context: Any) -> dict[str, Any]:
    """Return the options of a command by name, long and short."""
    options = [one for one in command.get_params(context) if one.opts[0].startswith("-")]
    return {name: one for one in options for name in (*one.opts, *one.secondary_opts)}


def bounds(option: Any) -> tuple[float | None, float | None]:
    """Return the minimum and the maximum of an option."""
    holder = option if hasattr(option, "min") else option.type  # before Typer 0.29
    return getattr(holder, "min", None), getattr(holder, "max", None)


def usage_line(command: Any, context: Any) -> str:
    """Return the usage of a command, in one line."""
    words = [context.command_path]
    params = [one for one in command.get_params(context) if not getattr(one, "hidden", False)]
    for one in params:
        if one.param_type_name == "argument":
            name = metavar(one)
            words.append(name if one.required or name.startswith("[") else f"[{name}]")
    needed = [one for one in params if one.param_type_name == "option" and one.required]
    words += [f"{flag_of(one)} {metavar(one)}" for one in needed]
    return " ".join([*words, "COMMAND" if hasattr(command, "commands") else "[OPTIONS]"])


def metavar(option: Any) -> str:
    """Return the placeholder for the value of an option or argument."""
    return str(option.metavar or "VALUE")


# Before Typer reads the words


def check_words(command: Any, context: Any, words: Sequence[str]) -> None:
    """Refuse two styles of other tools that Typer would misread: `data=food` and `-epochs 3`.

    Args:
        command: Typer's.
        context: Typer's.
        words: The command line after the command.

    Raises:
        UsageError: A word has one of these styles; the hint names the option.
    """
    flags = _flags(command, context)
    free = list(_free_words(words, flags))
    corrected = {word: _corrected(word, flags, command, context) for word in free}
    for word in free:
        if corrected[word] is not None:
            typed = [
                quoted(word) if corrected.get(word) is None else corrected[word] for word in words
            ]
            raise UsageError(
                f"{show(word)} is not an option: options start with two dashes",
                hint=" ".join(filter(None, [context.command_path, *typed])),
            )
    names = [word.partition("=")[0] for word in free if word.startswith("--")]
    unknown = [name for name in dict.fromkeys(names) if name not in flags]
    meant = [nearest(name, flags, OPTIONS) for name in unknown]
    if len(unknown) > 1 and all(meant):  # Typer would report the first alone
        raise UsageError(
            f"{context.command_path} has no options {enumerated(unknown)}",
            hint=f"did you mean {enumerated(list(filter(None, meant)))}?",
        )


def _corrected(word: str, flags: dict[str, Any], command: Any, context: Any) -> str | None:
    """Return a word in our style if it has another tool's; else None."""
    name, sign, value = word.partition("=")
    is_single = re.match(r"-[a-zA-Z]{2,}", word) is not None
    is_pair = sign != "" and not word.startswith("-") and not os.path.lexists(word)
    if not is_single and not is_pair:
        return None
    meant = (same if is_single else nearest)(name, flags, OPTIONS)
    if meant is None and is_pair and _is_argument(name, command, context):
        meant = ""
    if meant is None:
        return None
    return " ".join(filter(None, [meant, quoted(value) if sign else ""]))


def _free_words(words: Sequence[str], flags: dict[str, Any]) -> Iterator[str]:
    """Yield the words that are not values of options, up to a double dash."""
    is_value = False
    for word in words:
        if word == "--":
            return
        if not is_value:
            yield word
        option = None if is_value else flags.get(word)
        is_value = option is not None and not option.is_flag


def read_numbers(command: Any, context: Any, words: Sequence[str]) -> list[str]:
    """Return the command line with numbers as Typer reads them: `--max-pixels 89,478,485`.

    Only values of options that take a whole number are changed: `1,500` could also mean 1.5.

    Args:
        command: Typer's.
        context: Typer's.
        words: The command line after the command.
    """
    numbers = {name for name, one in _flags(command, context).items() if _kind(one) == "int"}
    read = list(words)
    for place, word in enumerate(words):
        name, sign, value = word.partition("=")
        if word == "--":
            break
        if sign and name in numbers:
            read[place] = f"{name}={without_separators(value)}"
        elif place and words[place - 1] in numbers:
            read[place] = without_separators(word)
    return read


# What Typer refuses


def explain(error: Any, command: Any, context: Any) -> UsageError:
    """Return an error of Typer in our words.

    Args:
        error: A `TypersError`.
        command: The command whose command line is invalid.
        context: Typer's.
    """
    path, kind = context.command_path, type(error).__name__
    lists = f"{path} --help lists the options"
    if kind == "NoSuchOption":
        return _unknown_option(error.option_name, command, context, lists)
    if kind == "BadOptionUsage":
        option = _flags(command, context).get(error.option_name)
        if option is None or option.is_flag:
            return UsageError(f"{error.option_name} takes no value", hint=lists)
        return UsageError(
            f"{error.option_name} needs a value: {_meaning(option)}",
            hint=f"{path} {error.option_name} {metavar(option)}",
        )
    option = getattr(error, "param", None)
    if kind == "MissingParameter" and option is not None:
        return UsageError(
            f"{flag_of(option)} is missing: {_meaning(option)}", hint=command.epilog or lists
        )
    if option is not None:
        return _bad_value(error, option, lists)
    return UsageError(show(str(error.message)).rstrip("."), hint=lists)


def _meaning(option: Any) -> str:
    text = re.split(r"[.;:] |[.;:]$", option.help or "")[0]
    return f"{text[:1].lower()}{text[1:]}"


def _unknown_option(name: str, command: Any, context: Any, lists: str) -> UsageError:
    hint = did_you_mean(name, _flags(command, context), also=OPTIONS)
    if hint is None and _is_argument(name, command, context):
        hint = usage_line(command, context)
    if hint is None:
        commands = context.find_root().command.commands.items()
        others = [other for other, its in commands if same(name, _flags(its, context))]
        hint = f"xception {others[0]} has it; {lists}" if len(others) == 1 else lists
    return UsageError(f"{context.command_path} has no option {show(name)}", hint=hint)


def _is_argument(name: str, command: Any, context: Any) -> bool:
    """Return whether an option of other tools names the images that a command has as arguments."""
    arguments = {
        one.name for one in command.get_params(context) if one.param_type_name == "argument"
    }
    return same(name, ["data"], OPTIONS) is not None and bool(arguments & _IMAGES)


def _bad_value(error: Any, option: Any, lists: str) -> UsageError:
    if closed := re.fullmatch(r"\w+ ['\"](.*)['\"] is not readable\.", str(error.message)):
        name = f"{flag_of(option)} " * (option.param_type_name == "option")
        return UsageError(
            f"cannot read {name}{show(closed[1])}: Permission denied",
            hint=f"ls -ld {quoted(closed[1])} shows who may read it",
        )
    # pydantic has the value; before Typer 0.29 it is in the message
    found: list[Any] = getattr(error.__cause__, "errors", list)()
    words = re.match(r"'?(.*?)'? is not ", str(error.message))
    value = found[0]["input"] if found else words[1] if words else error.message
    kind = _KINDS.get(_kind(option) or "", "another value")
    low, high = bounds(option)
    link = " " if low is None else " of " if high is None else " from "
    expected = f"{kind}{link}{span(low, high)}".rstrip()
    received = show(repr(value))
    return UsageError(f"{flag_of(option)} is {received}, expected {expected}", hint=lists)


def _kind(option: Any) -> str | None:
    """Return `int` or `float` for an option that takes a number."""
    annotation = getattr(getattr(option, "type_descriptor", option), "annotation", None)
    name = getattr(annotation, "__name__", getattr(getattr(option, "type", None), "name", ""))
    return next((kind for kind in _KINDS if name.startswith(kind)), None)


def as_typed(message: str, command: Any, context: Any) -> str:
    """Replace the name of a setting by its option in an error like `image_size is 70`.

    Args:
        message: Message of an error from code that does not know the command line.
        command: Typer's.
        context: Typer's, with the values that were given.
    """
    name, is_verb, rest = message.partition(" is ")
    flags = _flags(command, context)
    flag = same(name, flags, OPTIONS) if name.replace("_", "").isalpha() else None
    option = flags.get(flag or "")
    if not is_verb or option is None or context.params.get(option.name) == option.default:
        return message
    return f"{flag} is {rest}"


def unexpected(words: Sequence[str], line: Sequence[str], command: Any, context: Any) -> UsageError:
    """Return the error for unexpected arguments.

    Args:
        words: The arguments.
        line: The whole command line after the command.
        command: Typer's.
        context: Typer's.
    """
    named = ", ".join(show(word) for word in words[:3])
    example = f"; for example, {command.epilog}" if command.epilog else ""
    hint = f"{usage_line(command, context)}{example}"
    return UsageError(
        f"{context.command_path} does not take {named}",
        hint=_quotes_hint(words, line, context) or hint,
    )


def split_path_hint(message: str, line: Sequence[str], context: Any) -> str | None:
    """Return the hint for an error about words of a path that the shell has split; else None.

    Args:
        message: Of the error.
        line: The command line after the command.
        context: Typer's.
    """
    named = {word.strip(",:;") for word in message.split()}
    missing = [word for word in line if show(word) in named and not os.path.lexists(word)]
    return _quotes_hint(missing, line, context)


def _quotes_hint(words: Sequence[str], line: Sequence[str], context: Any) -> str | None:
    joined = _with_quotes(words, line)
    if joined is None:
        return None
    corrected = " ".join([context.command_path, *map(quoted, joined)])
    return f"put quotes around a name with spaces: {corrected}"


def _with_quotes(words: Sequence[str], line: Sequence[str]) -> list[str] | None:
    """Join words of a command line to a path that the shell has split at its spaces.

    Args:
        words: Words that cannot be used; the path has at least one of them.
        line: The command line.

    Returns:
        The command line with the longest such path; None if there is none.
    """
    wanted = {*words}
    for count in range(min(len(line), _MOST_WORDS), 1, -1):
        for start in range(len(line) - count + 1):
            end = start + count
            path = " ".join(line[start:end])
            if not wanted.isdisjoint(line[start:end]) and os.path.lexists(path):
                return [*line[:start], path, *line[end:]]
    return None


def unknown_command(name: str, group: Any, context: Any) -> UsageError:
    """Return the error for a word that is not a command: a mistyped one, an option, or a path."""
    path = context.command_path
    if context.parent is None and os.path.lexists(name):
        use = "train" if Path(name).is_dir() else "predict"
        return UsageError(f"{show(name)} is not a command", hint=f"{path} {use} {quoted(name)}")
    if context.parent is None and (os.sep in name or "." in name):
        return UsageError(
            f"{show(name)} is neither a command nor a file",
            hint=f"{path} --help lists the commands",
        )
    also = COMMANDS.get(path, {})
    known = [*group.commands, *chain(*also.values())]  # `train --resume`, too
    near = nearest(name, known, also) or same(name, _flags(group, context))
    hint = f"did you mean {path} {near}?" if near else f"{path} --help lists the commands"
    return UsageError(f"{path} has no command {show(name) or repr(name)}", hint=hint)
