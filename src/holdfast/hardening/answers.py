"""Answer hardening: the service tells less about what the model computed, and the probes attack through what is left.

- `label`: the predicted class alone.
- `round: d`: probabilities to d decimal places.
- `top_k: k`: the k largest probabilities; the rest of the mass is known, its distribution is not.

Hardening hides information and changes no decision: the predicted class is that of the model itself in every mode. Somebody
who holds the model's file is not held up by it at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from holdfast.core.errors import AccessDenied, ConfigurationError, Inconclusive
from holdfast.core.oracle import Access
from holdfast.core.target import Model, Target

MODES = ("round", "top_k")
MOST_DIGITS = 9
MITIGATES = ("T-EVA-02", "T-EVA-04", "T-PRI-01", "T-PRI-02", "T-PRI-03", "T-PRI-04", "T-PRI-07", "T-EXT-01", "T-EXT-03")
TIE = 1e-5
"""Advantage, in log-probability, of the predicted class over those it ties with after hardening; survives float32."""


def harden_answers(model: Model, answers: str | Mapping[str, int]) -> Model:
    """The model as a service with hardened answers shows it.

    Args:
        model: the model as it computes.
        answers: `label`, or a mapping with `round` (1 to 9 decimal places), `top_k` (at least 1), or both: the k largest
            probabilities, rounded.

    Raises:
        ConfigurationError: the mode is unknown or its number makes no sense.
    """
    return HardenedModel(model=model, mode=parse_answers(answers, len(model.classes)))


@dataclass(frozen=True, kw_only=True)
class AnswerMode:
    """What the service answers: labels only, or probabilities cut to `top_k` and rounded to `digits`; None leaves them."""

    labels_only: bool = False
    digits: int | None = None
    top_k: int | None = None

    def __str__(self) -> str:
        if self.labels_only:
            return "label only"
        parts = [f"the {self.top_k} largest"] if self.top_k is not None else []
        return ", ".join([*parts, f"rounded to {self.digits} digits"] if self.digits is not None else parts)


def parse_answers(answers: str | Mapping[str, int], classes: int | None = None) -> AnswerMode:
    """Read the form that the system file and the command line use.

    Args:
        answers: as for `harden_answers`.
        classes: how many classes the model has; a `top_k` that hides nothing is refused when it is known.

    Raises:
        ConfigurationError: as for `harden_answers`.
    """
    hint = "One of: label, {round: DIGITS}, {top_k: K}."
    if isinstance(answers, str):
        if answers != "label":
            raise ConfigurationError(f"unknown answer hardening {answers!r}", where="serving.answers", hint=hint)
        return AnswerMode(labels_only=True)
    unknown = sorted(set(answers) - set(MODES))
    if unknown or not answers:
        raise ConfigurationError(
            f"unknown answer hardening {unknown[0]!r}" if unknown else "empty", where="serving.answers", hint=hint
        )
    for name, value in answers.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigurationError(f"{value!r} is not a whole number", where=f"serving.answers.{name}", hint=hint)
    digits, top_k = answers.get("round"), answers.get("top_k")
    if digits is not None and not 1 <= digits <= MOST_DIGITS:
        raise ConfigurationError(
            f"{digits} is not between 1 and {MOST_DIGITS}",
            where="serving.answers.round",
            hint="Rounding to whole numbers is what `label` is for.",
        )
    if top_k is not None and top_k < 1:
        raise ConfigurationError(f"{top_k} is not at least 1", where="serving.answers.top_k", hint=hint)
    if top_k is not None and digits is None and classes is not None and top_k >= classes - 1:
        raise ConfigurationError(
            f"the {top_k} largest of {classes} probabilities tell all of them, because they sum to one",
            where="serving.answers.top_k",
            hint="Use a smaller k, label or round.",
        )
    return AnswerMode(digits=digits, top_k=top_k)


@dataclass(frozen=True, kw_only=True)
class HardenedModel:
    """A model behind hardened answers. It never gives gradients.

    `scores` are what an attacker makes of the answered probabilities:

    - They are not scaled to sum to one again, because the service does not do so and it would tell nothing new.
    - A rounded 0 stands for the middle of what rounds to it, a quarter of the last digit.
    - Classes outside the top k share the mass that is left equally, and never more than the k-th largest.
    - Where hardening ties the predicted class with another, the prediction keeps an advantage of one part in 100,000, so
      that the largest score always names the class that `labels` answers.
    """

    model: Model
    mode: AnswerMode

    @property
    def access(self) -> Access:
        """Labels, or at most scores."""
        return Access.LABELS if self.mode.labels_only else min(self.model.access, Access.SCORES)

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names of the model."""
        return self.model.classes

    @property
    def guessed_order(self) -> bool:
        """Whether the order of the model's classes is a guess."""
        return bool(getattr(self.model, "guessed_order", False))

    @property
    def framework(self) -> str:
        """The framework of the model."""
        return self.model.framework

    def labels(self, x: Any) -> NDArray[np.int64]:
        """(n,) the model's own decisions."""
        return self.model.labels(x)

    def scores(self, x: Any) -> Any:
        """(n, k) log-probabilities as far as the answers tell them, in the array library of the model's scores.

        Raises:
            AccessDenied: the service answers labels only, or the model has no scores.
            Inconclusive: the model answered NaN.
        """
        if self.access < Access.SCORES:
            raise AccessDenied("the service answers labels only")
        raw = self.model.scores(x)
        plain = np.asarray(raw.detach().cpu().numpy() if hasattr(raw, "detach") else raw, dtype=np.float64)
        if np.isnan(plain).any():
            raise Inconclusive("the model answered NaN", hint="Find the inputs that cause it.")
        hardened = _harden(plain, self.mode)
        return raw.new_tensor(hardened) if hasattr(raw, "new_tensor") else hardened

    def value_and_gradient(self, x: Any, loss: Callable[[Any], Any]) -> tuple[Any, Any]:  # noqa: ARG002
        """Refused.

        Raises:
            AccessDenied: always.
        """
        raise AccessDenied("hardened answers give no gradients")


def _harden(scores: NDArray[np.float64], mode: AnswerMode) -> NDArray[np.float64]:
    """Log-probabilities as the answers tell them, from (n, k) logits or log-probabilities."""
    predicted = scores.argmax(axis=1)
    probabilities = np.exp(log_softmax(scores, axis=1))
    order = np.argsort(-scores, axis=1, kind="stable")
    shown = np.ones(scores.shape, dtype=bool)
    if mode.top_k is not None and mode.top_k < scores.shape[1]:
        np.put_along_axis(shown, order[:, mode.top_k :], values=False, axis=1)
    told = probabilities if mode.digits is None else np.round(probabilities, mode.digits)
    floor = np.finfo(np.float64).tiny if mode.digits is None else 10.0**-mode.digits / 4
    told = np.where(told > 0, told, floor)
    hidden = np.maximum(~shown @ np.ones(scores.shape[1]), 1)
    rest = np.clip(1 - np.where(shown, told, 0).sum(axis=1), 0, None) / hidden
    smallest = np.where(shown, told, np.inf).min(axis=1)
    told = np.where(shown, told, np.clip(rest, floor, smallest)[:, None])
    logs = np.log(told)
    rows = np.arange(len(logs))
    logs[rows, predicted] = np.maximum(logs[rows, predicted], logs.max(axis=1) + TIE)
    return logs


@dataclass(frozen=True, kw_only=True)
class AnswerHardening:
    """The control: the service's answers are cut or rounded. `answers` is as for `harden_answers`."""

    answers: str | Mapping[str, int] = "label"
    id: str = field(default="C-OBSCURE", init=False)
    mitigates: tuple[str, ...] = field(default=MITIGATES, init=False)

    def apply(self, target: Target, seed: int) -> Target:  # noqa: ARG002
        """The target served with hardened answers; the model itself stays open to who holds its file."""
        harden = partial(harden_answers, answers=self.answers)
        return replace(target, model=harden(target.weights), bare=target.weights, harden=harden)
