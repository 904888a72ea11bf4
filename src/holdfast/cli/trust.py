"""trust: let a file that can run code be opened, by its digest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from holdfast.cli.output import Json, emit_json, plain, say

SHOWN = 40


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    from holdfast.cli.main import SERVICE

    app.command("trust", rich_help_panel=SERVICE)(trust)


def trust(
    path: Annotated[Path | None, typer.Argument(metavar="FILE", help="A model file, or named Python code.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="Show what is trusted.")] = False,
    remove: Annotated[str | None, typer.Option(metavar="SHA256", help="Trust no longer; the first 8 digits suffice.")] = None,
    json: Json = False,
) -> None:
    """Show what opening a file would run, and trust exactly these bytes.

    The list lies in your own configuration folder, never in a project.
    """
    from holdfast.artifacts.trust import TrustStore
    from holdfast.core.errors import ConfigurationError

    store = TrustStore()
    if sum((path is not None, listed, remove is not None)) != 1:
        raise ConfigurationError("exactly one of FILE, --list and --remove is needed", hint="See: holdfast trust --help")
    if remove is not None:
        store.remove(remove)
    elif path is not None:
        _trust_file(store, path, yes, json)
        return
    files = store.files()
    if json:
        emit_json({"store": str(store.path), "files": [entry.model_dump() for entry in files]})
        return
    say(f"{len(files)} trusted files in {plain(store.path)}")
    for entry in files:
        say(f"  {plain(entry.sha256)}  {plain(entry.added)}  {plain(entry.name)}")


def _trust_file(store: object, path: Path, yes: bool, json: bool) -> None:
    from holdfast.artifacts.trust import TrustStore
    from holdfast.core.errors import ConfigurationError

    assert isinstance(store, TrustStore)
    kind, digest, names, unlisted = _look(path)
    if not json:
        say(f"{plain(path)}: {plain(kind)}\n  sha256 {digest}")
        for name in names[:SHOWN]:
            say(f"  {'[red]not listed[/red]' if _base(name, unlisted) else 'listed    '}  {plain(name)}")
        if len(names) > SHOWN:
            say(f"  and {len(names) - SHOWN} more names")
        if unlisted:
            say(f"Opening it would run or use: {plain(', '.join(unlisted[:SHOWN]))}")
    needed = bool(unlisted)
    if needed and not yes:
        if json:
            raise ConfigurationError("with --json nobody can be asked", hint="Add --yes to trust the file.")
        if not typer.confirm("Trust exactly these bytes from now on?", default=False):
            say("Not trusted.")
            raise typer.Exit(1)
    if needed:
        store.add(digest, path.name)
    if json:
        emit_json(
            {"file": str(path), "format": kind, "sha256": digest, "globals": names, "unlisted": unlisted, "trusted": needed}
        )
    else:
        say("Trusted." if needed else "It needs no trust: opening it runs nothing that is not on the allow-list.")


def _look(path: Path) -> tuple[str, str, list[str], list[str]]:
    """Kind, digest, the names the file refers to, and those that are not listed."""
    if path.suffix == ".py":
        import hashlib

        from holdfast.artifacts.code import MOST_BYTES
        from holdfast.core.files import read_file

        return "Python code", hashlib.sha256(read_file(path, MOST_BYTES)).hexdigest(), [], ["all of its code"]
    from holdfast.artifacts.checking import check_file

    check = check_file(path)
    return check.format, check.digest, list(check.globals), list(check.unlisted)


def _base(name: str, unlisted: list[str]) -> bool:
    return any(entry == name or entry.startswith(f"{name} (") for entry in unlisted)
