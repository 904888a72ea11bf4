"""What the owner decided about risks, in a file beside the system file that belongs under version control.

A decision names the model and the data that it was made for. It lapses when either changes, or when its date has passed, so
that an acceptance never outlives what was accepted.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from holdfast.core.errors import ConfigurationError
from holdfast.core.evidence import Document
from holdfast.core.files import parse_document, read_if_present, write_document
from holdfast.risk.register import Decision

FILE = "holdfast-decisions.json"
LARGEST = 4 * 1024 * 1024
LONGEST_TEXT = 2000
Choice = Literal["accept", "mitigate", "transfer", "avoid"]


class Decisions(Document):
    """The file: every decision ever recorded, the newest last. Whether one is in force is computed, never stored."""

    format: Literal["holdfast-decisions/1"] = "holdfast-decisions/1"
    decisions: tuple[Decision, ...] = Field(default=(), max_length=10_000)

    @field_validator("decisions")
    @classmethod
    def _checked(cls, decisions: tuple[Decision, ...]) -> tuple[Decision, ...]:
        for decision in decisions:
            if not decision.who.strip():
                raise ValueError(f"decision {decision.id} names nobody")
        if len({decision.id for decision in decisions}) != len(decisions):
            raise ValueError("two decisions have the same id")
        return decisions


def decisions_file(system_file: Path) -> Path:
    """Where the decisions about a system are kept: beside its system file."""
    return system_file.parent / FILE


def read_decisions(system_file: Path) -> tuple[Decision, ...]:
    """All recorded decisions about a system; none when there is no file.

    Raises:
        ConfigurationError: the file is too large, or is no such file.
    """
    path = decisions_file(system_file)
    content = read_if_present(path, LARGEST)
    if content is None:
        return ()
    recorded = parse_document(content, Decisions, "a list of decisions", path)
    return tuple(decision.model_copy(update={"state": "in force", "lapsed_because": ""}) for decision in recorded.decisions)


def record_decision(
    system_file: Path,
    *,
    risk: str,
    choice: Choice,
    who: str,
    until: str,
    model_digest: str,
    data_digest: str,
    reason: str = "",
    now: datetime | None = None,
) -> Decision:
    """Add a decision to the file; the old file stays whole if anything goes wrong.

    Args:
        system_file: the system's.
        risk: the risk's id in the register.
        choice: what was decided.
        who: decided it.
        until: the last day on which it holds, as YYYY-MM-DD.
        model_digest, data_digest: of what was assessed.
        reason: in the owner's words.
        now: when it was made; the current time by default.

    Raises:
        ConfigurationError: a field is not usable, or the file cannot be written.
    """
    moment = now or datetime.now(UTC)
    last = _day(until)
    if last < moment.date():
        raise ConfigurationError(f"the decision would have lapsed already, on {until}", where="until", hint="Give a day to come.")
    if not who.strip():
        raise ConfigurationError("a decision needs somebody who made it", where="who")
    for name, text in (("who", who), ("reason", reason)):
        if len(text) > LONGEST_TEXT or any(ord(letter) < 32 and letter not in "\n\t" for letter in text):
            raise ConfigurationError(f"longer than {LONGEST_TEXT} characters, or with control characters", where=name)
    path = decisions_file(system_file)
    with _locked(path):
        recorded = read_decisions(system_file)
        made = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        named = "\x1f".join((risk, choice, who, until, made, str(len(recorded))))
        decision = Decision(
            id=f"D-{hashlib.sha256(named.encode('utf-8', 'replace')).hexdigest()[:10]}",
            risk=risk,
            choice=choice,
            who=who,
            until=last.isoformat(),
            reason=reason,
            model_digest=model_digest,
            data_digest=data_digest,
            made=made,
        )
        write_document(path, Decisions(decisions=(*recorded, decision)))
    return decision


def decisions_in_force(
    decisions: Sequence[Decision], model_digest: str, data_digest: str, today: date | None = None
) -> tuple[Decision, ...]:
    """The same decisions, each marked as in force or as lapsed, with the reason.

    A later decision about the same risk replaces an earlier one.

    Args:
        decisions: as recorded, the newest last.
        model_digest, data_digest: of what is assessed now; an unknown digest lapses a decision like a changed one.
        today: the day it is; the current one in UTC by default.
    """
    day = today or datetime.now(UTC).date()
    newest = {decision.risk: index for index, decision in enumerate(decisions)}
    marked = []
    for index, decision in enumerate(decisions):
        reasons = []
        if not model_digest or decision.model_digest != model_digest:
            reasons.append("the model has changed")
        if not data_digest or decision.data_digest != data_digest:
            reasons.append("the data have changed")
        if date.fromisoformat(decision.until) < day:
            reasons.append(f"it held until {decision.until}")
        if newest[decision.risk] != index:
            reasons.append(f"{decisions[newest[decision.risk]].id} replaced it")
        state: Literal["in force", "lapsed"] = "lapsed" if reasons else "in force"
        marked.append(decision.model_copy(update={"state": state, "lapsed_because": "; ".join(reasons)}))
    return tuple(marked)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(f"{text!r} is no date", where="until", hint="As YYYY-MM-DD.") from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One writer at a time, by a lock on the folder, which leaves no file behind."""
    try:
        handle = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ConfigurationError(f"cannot open the folder: {error.strerror}", where=str(path.parent)) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
