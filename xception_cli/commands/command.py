"""Command and Group: Typer's, with our help and errors, and the options that every command has."""

from typing import Any

from typer import Exit, echo
from typer.core import TyperCommand, TyperGroup

from xception_cli.commands import usage
from xception_cli.commands.help import render_help
from xception_cli.console import emit
from xception_cli.errors import UsageError

_LINE = "the command line"  # in Typer's context


class Command(TyperCommand):
    """A command with help in panels, errors in our words, and the options of every command."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options, including those of every command."""
        return _with_shared(super().get_params(ctx), ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line."""
        if ctx.resilient_parsing:  # for a shell's completion
            return super().parse_args(ctx, args)
        usage.check_words(self, ctx, args)
        ctx.meta[_LINE] = list(args)
        ctx.allow_extra_args = True
        try:
            rest = super().parse_args(ctx, usage.read_numbers(self, ctx, args))
        except usage.TypersError as error:
            raise usage.explain(error, self, ctx) from error
        if rest:
            raise usage.unexpected(rest, args, self, ctx)
        return rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except UsageError as error:
            error.message = usage.as_typed(error.message, self, ctx)
            error.hint = usage.split_path_hint(error.message, ctx.meta[_LINE], ctx) or error.hint
            raise

    def get_help_option(self, ctx: Any) -> Any:
        """Return --help."""
        return _printing_help(super().get_help_option(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help text."""
        formatter.write(render_help(self, ctx))


class Group(TyperGroup):
    """A group of commands; see `Command`."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options, including those of every command."""
        return _with_shared(super().get_params(ctx), ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line up to the command."""
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        if not args:
            echo(self.get_help(ctx), err=True)
            raise Exit(UsageError.exit_code)
        rest = list(args)
        try:
            rest = super().parse_args(ctx, args)
        except usage.TypersError as error:
            raise usage.explain(error, self, ctx) from error
        if not (ctx._protected_args or rest):
            raise UsageError(
                f"{ctx.command_path} needs a command",
                hint=f"{ctx.command_path} --help lists the commands",
            )
        return rest

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        """Find the command by its name."""
        if self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing:
            raise usage.unknown_command(args[0], self, ctx)
        return super().resolve_command(ctx, args)

    def get_help_option(self, ctx: Any) -> Any:
        """Return --help."""
        return _printing_help(super().get_help_option(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help text."""
        formatter.write(render_help(self, ctx))


def _printing_help(option: Any) -> Any:
    """Let --help write as other output is written, so that a closed pipe is no error."""

    def callback(context: Any, _: Any, wanted: bool) -> None:
        if wanted and not context.resilient_parsing:
            emit(context.get_help())
            context.exit()

    if option is not None:
        option.callback = callback
    return option


def _with_shared(params: list[Any], context: Any) -> list[Any]:
    """Add the program's own options, except --version, to those of a command."""
    root = context.find_root()
    if root is context:
        return params
    shared = [option for option in root.command.params if option.name in {"quiet", "debug"}]
    return [*params[:-1], *shared, *params[-1:]]  # --help stays last
