"""Any Python callable that takes inputs and gives probabilities, logits or labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from holdfast.models.adapter import Adapter
from holdfast.models.answers import Context


class PythonModel(Adapter):
    """A callable: (n, ...) inputs in, (n, k) probabilities or logits, or (n,) labels, out.

    Args:
        function: the callable.
        context: as for every adapter.
    """

    framework = "python"

    def __init__(self, function: Callable[[Any], Any], context: Context) -> None:
        self._function = function
        super().__init__(context)

    def answer(self, x: Any) -> Any:
        """The callable's answer."""
        return self._function(x)
