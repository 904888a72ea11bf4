"""The `holdfast` command.

Each module of this room registers the commands of one group. Modules import what they need inside the command, so that
`holdfast --help` answers at once.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from typing import Annotated

import typer

import holdfast
import holdfast.cli
from holdfast.core.errors import HoldfastError

app = typer.Typer(
    name="holdfast",
    help="Measure, quantify and lower the security risks of a machine-learning model.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

DESCRIBE = "Describe the system"
MEASURE = "Measure"
DECIDE = "Read, decide and gate"
LOWER = "Lower the risk"
SERVICE = "Files and settings"


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
    return app


def main() -> None:
    """Run the command line.

    Problems a user can solve end with one clear message and the error's exit code; a fault of our own ends with 3, so that
    no pipeline takes it for a pass or a breach. The text of an unexpected error may hold data and is shown on request only.
    """
    try:
        build()()
    except HoldfastError as error:
        sys.stderr.write(f"holdfast: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("holdfast: interrupted\n")
        sys.exit(130)
    except Exception as error:
        if os.environ.get("HOLDFAST_DEBUG"):
            raise
        sys.stderr.write(f"holdfast: a fault in Holdfast itself ({type(error).__name__}); nothing was decided\n")
        sys.stderr.write("  Set HOLDFAST_DEBUG=1 to see where, and please report it.\n")
        sys.exit(3)


if __name__ == "__main__":
    main()
