"""What a control is: a change to the model or its answers that lowers a risk, proven only by measuring again."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from holdfast.core.target import Target


@runtime_checkable
class Control(Protocol):
    """A change that lowers a risk.

    Controls register under the entry-point group `holdfast.controls`.
    """

    @property
    def id(self) -> str:
        """The catalogue's control id."""

    @property
    def mitigates(self) -> tuple[str, ...]:
        """The catalogue's threats that it is meant to lower; only a paired re-measurement shows whether it does."""

    def apply(self, target: Target, seed: int) -> Target:
        """The target with the control in place; the given target is left as it is.

        Raises:
            CannotMeasure: the target lacks what the control needs, such as a training recipe.
        """
