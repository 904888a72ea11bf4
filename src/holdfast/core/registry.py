"""Plug-ins: probes, attacks, controls, scanners and exporters that register through entry points.

A package adds one by an entry point in the group `holdfast.<kind>`, for example::

    [project.entry-points."holdfast.probes"]
    my-probe = "my_package.probes:MyProbe"

Holdfast's own are registered the same way, in its `pyproject.toml`.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from holdfast.core.errors import ConfigurationError


def names(kind: str) -> list[str]:
    """The names registered under `holdfast.<kind>`, sorted, without importing anything."""
    return sorted({point.name for point in _points(kind)})


def load(kind: str, name: str) -> Any:
    """Import and return what is registered as `name` under `holdfast.<kind>`.

    Raises:
        ConfigurationError: nothing, or more than one thing, is registered under that name, or it cannot be imported.
    """
    found = [point for point in _points(kind) if point.name == name]
    if not found:
        raise ConfigurationError(f"no plug-in {name!r} of kind {kind}", hint=f"Known: {', '.join(names(kind)) or 'none'}")
    targets = {point.value for point in found}
    if len(targets) > 1:
        raise ConfigurationError(f"plug-in {name!r} of kind {kind} is registered more than once: {', '.join(sorted(targets))}")
    try:
        return found[0].load()
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"plug-in {name!r} ({found[0].value}) cannot be imported: {error}") from error


def distributions(kind: str) -> dict[str, str]:
    """Which package, in which version, registers each name, without importing anything."""
    return {point.name: f"{point.dist.name} {point.dist.version}" if point.dist else point.value for point in _points(kind)}


def load_all(kind: str) -> dict[str, Any]:
    """Import everything registered under `holdfast.<kind>`, by name."""
    return {name: load(kind, name) for name in names(kind)}


def _points(kind: str) -> list[EntryPoint]:
    return list(entry_points(group=f"holdfast.{kind}"))
