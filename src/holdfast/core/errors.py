"""Errors that say what was wrong, where, and what to do about it.

Every error a user can cause is a `HoldfastError`. The command line prints it without a traceback and exits with the
error's `exit_code`: 2 for usage and configuration, 4 for integrity failures.
"""

from __future__ import annotations

from typing import Literal


class HoldfastError(Exception):
    """A problem a user can cause or solve.

    Args:
        what: one sentence that names the problem.
        where: the file, field or line it was found in.
        hint: what to do about it.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        self.what = what
        self.where = where
        self.hint = hint
        super().__init__(what)

    def __str__(self) -> str:
        located = f"{self.where}: {self.what}" if self.where else self.what
        return f"{located}\n  {self.hint}" if self.hint else located

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.where, self.hint)


def _rebuild(kind: type[HoldfastError], what: str, where: str | None, hint: str | None) -> HoldfastError:
    return kind(what, where=where, hint=hint)


class ConfigurationError(HoldfastError):
    """The system file, a policy or an option is wrong."""


class InvalidData(HoldfastError):
    """A data set is malformed or does not fit the model."""


class InvalidModel(HoldfastError):
    """A model file is malformed, of an unknown format, or answers in a form no adapter understands."""


class UnsafeFile(HoldfastError):
    """Opening the file could run code that nobody has trusted."""

    exit_code = 4


class IntegrityFailure(HoldfastError):
    """A document or file is not the one that was measured or signed."""

    exit_code = 4


class MissingExtra(HoldfastError):
    """An optional dependency is not installed."""

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(what, where=where, hint=hint)

    @classmethod
    def of(cls, package: str, extra: str, purpose: str) -> MissingExtra:
        """Name the package, what it is for, and the `pip install` line of the extra that brings it."""
        return cls(
            f"{purpose} needs the package {package}", hint=f"Run in the folder of Holdfast's source: pip install '.[{extra}]'"
        )


class AccessDenied(HoldfastError):
    """An attack asked the oracle for more than its actor sees."""


class QueryBudgetExceeded(HoldfastError):
    """An attack asked the oracle for more rows than a sample's budget allows."""


class CannotMeasure(HoldfastError):
    """A probe cannot give a number. The subclass says which of the four reasons it is; none of them means safe."""

    status: Literal["failed", "not_applicable", "unmeasured", "inconclusive"] = "failed"


class NotApplicable(CannotMeasure):
    """The threat cannot occur on this target, by a stated fact."""

    status = "not_applicable"


class Unmeasured(CannotMeasure):
    """Something the probe needs was not given."""

    status = "unmeasured"


class Inconclusive(CannotMeasure):
    """The probe ran, but its numbers do not support any statement."""

    status = "inconclusive"
