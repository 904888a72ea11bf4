"""The `holdfast` command.

Each module of this room registers the commands of one group. Modules import what they need inside the command, so that
`holdfast --help` answers at once.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
import warnings
from typing import Annotated, Any

import typer
from typer import Abort

import holdfast
import holdfast.cli
from holdfast.cli.output import print_error
from holdfast.core.errors import ConfigurationError, HoldfastError
from holdfast.reports.text import clean

app = typer.Typer(
    name="holdfast",
    help="Measure, quantify and lower the security risks of a machine-learning model.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


class OwnFault(HoldfastError):
    """Something that no user caused."""

    exit_code = 3


class Interrupted(HoldfastError):
    """Ctrl-C, or the end of the input where an answer was asked for."""

    exit_code = 130


DESCRIBE = "Describe the system"
MEASURE = "Measure"
DECIDE = "Read, decide and gate"
LOWER = "Lower the risk"
SERVICE = "Files and settings"
PANELS = (DESCRIBE, MEASURE, LOWER, DECIDE, SERVICE)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"holdfast {holdfast.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Measure, quantify and lower the security risks of a machine-learning model."""


def build() -> typer.Typer:
    """The application with the commands of every module in this room that has `register(app)`."""
    for name in sorted(module.name for module in pkgutil.iter_modules(holdfast.cli.__path__) if module.name != "main"):
        module = importlib.import_module(f"holdfast.cli.{name}")
        if hasattr(module, "register"):
            module.register(app)
    app.registered_commands.sort(key=lambda command: PANELS.index(str(command.rich_help_panel)))
    return app


def main() -> None:
    """Run the command line.

    Problems a user can solve end with one clear message and the error's exit code; a fault of our own ends with 3, so that
    no pipeline takes it for a pass or a breach. The text of an unexpected error may hold data and is shown on request only.
    """
    warnings.showwarning = show_warning
    try:
        code = build()(standalone_mode=False)
        if code != Interrupted.exit_code:
            sys.exit(code)
        problem: HoldfastError = Interrupted("interrupted")
    except HoldfastError as error:
        problem = error
    except (KeyboardInterrupt, Abort):
        problem = Interrupted("interrupted")
    except Exception as error:
        if not hasattr(error, "format_message"):
            if os.environ.get("HOLDFAST_DEBUG"):
                raise
            problem = OwnFault(
                f"a fault in Holdfast itself ({type(error).__name__}); nothing was decided",
                hint="Set HOLDFAST_DEBUG=1 to see where, and please report it.",
            )
        elif type(error).__name__ == "NoArgsIsHelpError":
            sys.exit(2)
        else:
            problem = _wrong_usage(error)
    print_error(problem)
    sys.exit(problem.exit_code)


def _wrong_usage(error: Any) -> HoldfastError:
    """What the command line's own parser found, as an error like all others."""
    context = getattr(error, "ctx", None)
    path = context.command_path.replace(context.find_root().command_path, "holdfast", 1) if context else "holdfast"
    return ConfigurationError(error.format_message(), hint=f"See: {path} --help")


def show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """Show a library's warning in one line; it may quote names from data."""
    sys.stderr.write(f"warning: {clean(str(message))} ({category.__name__})\n")


if __name__ == "__main__":
    main()
