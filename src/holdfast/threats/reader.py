"""Reading the system file: every problem in it at once, each with its line, its field and what was probably meant.

1. The file is read as hostile YAML (`yamlfile`).
2. Facts and control ids are checked against the catalogue's words.
3. The form is checked against `System`, without converting: a number in quotes is text, and `true` is no number.
4. What spans several fields is checked: names that must be unique, one unit of loss, defaults that name a field.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from holdfast.core.errors import ConfigurationError
from holdfast.threats.catalogue import Catalogue, load_catalogue
from holdfast.threats.system import FACT_FIELDS, Section, System
from holdfast.threats.yamlfile import FileMissing, Node, parse_yaml, read_yaml, shown

Step = str | int
_MOST_SHOWN = 25
_KINDS = {
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
    "float_type": "a number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "finite_number": "a finite number",
}


class InvalidSystem(ConfigurationError):
    """Several problems in one system file; `problems` holds each with its own place."""

    problems: tuple[ConfigurationError, ...] = ()

    @classmethod
    def of(cls, problems: Sequence[ConfigurationError], name: str) -> ConfigurationError:
        """One error for one problem, and one that lists them for several."""
        if len(problems) == 1:
            return problems[0]
        listed = [f"  {item.where}: {item.what}" + (f". {item.hint}" if item.hint else "") for item in problems[:_MOST_SHOWN]]
        if len(problems) > _MOST_SHOWN:
            listed.append(f"  and {len(problems) - _MOST_SHOWN} more")
        error = cls(f"{len(problems)} problems\n" + "\n".join(listed), where=name)
        error.problems = tuple(problems)
        return error


@dataclass(frozen=True, order=True)
class _Problem:
    line: int
    path: tuple[str, ...]
    what: str
    hint: str | None = None

    def error(self, name: str) -> ConfigurationError:
        field = ".".join(self.path).replace(".[", "[")
        return ConfigurationError(self.what, where=f"{name}:{self.line}{': ' + field if field else ''}", hint=self.hint)


def read_system(path: Path) -> System:
    """Read a system file.

    Raises:
        ConfigurationError: the file cannot be read, is not YAML, or says something that cannot be; `where` names the file,
            the line and the field. Several problems come as one `InvalidSystem`.
    """
    try:
        top = read_yaml(path)
    except FileMissing as error:
        raise FileMissing(error.what, where=error.where, hint="Write one with: holdfast init MODEL DATA") from None
    return _system(top, str(path), load_catalogue())


def parse_system(text: str, name: str = "holdfast.yaml") -> System:
    """As `read_system`, for text that is not in a file; `name` is what errors call it."""
    return _system(parse_yaml(text.encode("utf-8", "surrogatepass"), name), name, load_catalogue())


def _system(top: Node, name: str, catalogue: Catalogue) -> System:
    problems = [*_facts(top, catalogue), *_controls(top, catalogue), *_names(top), *_units(top), *_shares(top), *_defaults(top)]
    try:
        system = System.model_validate_json(json.dumps(top.unwrap()), strict=True)
    except ValidationError as error:
        problems += _form(top, error)
        system = None
    if problems or system is None:
        raise InvalidSystem.of(
            [problem.error(name) for problem in sorted(dict.fromkeys(problems), key=lambda item: item.line)], name
        )
    return system


def _problem(top: Node, path: Sequence[Step], what: str, hint: str | None = None) -> _Problem:
    steps = tuple(f"[{step}]" if isinstance(step, int) else step if step.isidentifier() else shown(step) for step in path)
    return _Problem(top.line_of(path), steps, what, hint)


def _facts(top: Node, catalogue: Catalogue) -> Iterator[_Problem]:
    """A fact is one of the catalogue's words or a list of them; an empty list would state nothing and look like a statement."""
    sections: list[tuple[tuple[Step, ...], Node]] = [
        ((key,), top.get(key)) for key in ("model", "serving", "lifecycle", "people")
    ]
    sections += [(("data", index), item) for index, item in enumerate(top.get("data").items)]
    for path, section in sections:
        for fact in FACT_FIELDS:
            node = section.get(fact)
            if node.value is None or fact not in _known_keys(path):
                continue
            words, here = catalogue.facts[fact], (*path, fact)
            if node.value == []:
                yield _problem(top, here, "the list is empty", "Leave the fact out if it is not known.")
            elif node.items:
                for index, item in enumerate(node.items):
                    yield from _word(top, (*here, index), item.value, words)
            else:
                yield from _word(top, here, node.value, words)


def _word(top: Node, path: Sequence[Step], value: object, words: Sequence[str]) -> Iterator[_Problem]:
    if not isinstance(value, str) or value not in words:
        yield _problem(top, path, f"{_seen(value)} is not one of its values", _meant(value, words))


def _controls(top: Node, catalogue: Catalogue) -> Iterator[_Problem]:
    given: set[object] = set()
    for index, item in enumerate(top.get("controls").items):
        if not isinstance(item.value, str):
            continue
        if item.value not in catalogue.controls:
            hint = _meant(item.value, list(catalogue.controls), "The controls are listed in the reference of threats.")
            yield _problem(top, ("controls", index), f"there is no control {shown(item.value)}", hint)
        elif item.value in given:
            yield _problem(top, ("controls", index), f"the control {item.value} is given twice")
        given.add(item.value)


def _names(top: Node) -> Iterator[_Problem]:
    for section in ("data", "actors"):
        given: set[str] = set()
        for index, item in enumerate(top.get(section).items):
            name = item.get("name").value
            if not isinstance(name, str):
                continue
            if name in given:
                yield _problem(top, (section, index, "name"), f"the name {shown(name)} is given twice")
            given.add(name)


def _units(top: Node) -> Iterator[_Problem]:
    """All losses are added up, so they need one unit; attempts are a count and have none."""
    first: tuple[str, object] | None = None
    for goal, section in top.get("impact").fields.items():
        if "per_event" not in section.fields:
            continue
        value = section.get("per_event").get("unit").value
        if first is None:
            first = (goal, value)
        elif value != first[1]:
            path = ("impact", goal, "per_event", "unit")
            here, there = (("no unit" if item is None else f"the unit {_seen(item)}") for item in (value, first[1]))
            yield _problem(top, path, f"{here}, but impact.{first[0]} has {there}", "Give all impacts one unit.")
    for index, actor in enumerate(top.get("actors").items):
        if "unit" in actor.get("attempts_per_year").fields:
            yield _problem(top, ("actors", index, "attempts_per_year", "unit"), "attempts are a count and take no unit")


def _shares(top: Node) -> Iterator[_Problem]:
    for index, actor in enumerate(top.get("actors").items):
        for point in ("typical", "high"):
            share = actor.get("poison_share").get(point).value
            if isinstance(share, int | float) and not isinstance(share, bool) and share > 1:
                here = ("actors", index, "poison_share", point)
                yield _problem(top, here, f"{share:g} is more than all training rows", "1 % is 0.01.")


def _defaults(top: Node) -> Iterator[_Problem]:
    for index, item in enumerate(top.get("defaults").items):
        if isinstance(item.value, str) and not _exists(top, item.value):
            keys = [f"{section}.{key}" for section, node in top.fields.items() for key in node.fields]
            hint = _meant(item.value, [*keys, *top.fields], "Name a field as section.field.")
            yield _problem(top, ("defaults", index), f"no field {shown(item.value)} is in this file", hint)


def _exists(node: Node, dotted: str) -> bool:
    """Whether a dotted name leads to a field; items of a list are called by their number or their `name`."""
    steps: list[tuple[str, Node]] = list(node.fields.items())
    for index, item in enumerate(node.items):
        name = item.get("name").value
        steps += [(str(index), item), *([(name, item)] if isinstance(name, str) else [])]
    return any(dotted == key or (dotted.startswith(key + ".") and _exists(item, dotted[len(key) + 1 :])) for key, item in steps)


def _form(top: Node, error: ValidationError) -> list[_Problem]:
    """What pydantic found, in words; the several branches of one field become one problem, and facts were judged before."""
    grouped: dict[tuple[Step, ...], list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        path = _path(top, detail)
        if not _is_fact(path):
            grouped.setdefault(path, []).append(detail)
    return [
        _explained(top, path, details)
        for path, details in grouped.items()
        if not any(len(other) > len(path) and other[: len(path)] == path for other in grouped)
    ]


def _is_fact(path: tuple[Step, ...]) -> bool:
    section, fact = (path[:2], path[2:3]) if path[:1] == ("data",) else (path[:1], path[1:2])
    return bool(fact) and fact[0] in FACT_FIELDS and fact[0] in _known_keys(section)


def _path(top: Node, detail: ErrorDetails) -> tuple[Step, ...]:
    """The steps of an error's location that exist in the file, without the names of union branches; a missing key is kept."""
    node = top
    path: list[Step] = []
    location = detail["loc"]
    for index, step in enumerate(location):
        if isinstance(step, str) and step in node.fields:
            node = node.fields[step]
            path.append(step)
        elif isinstance(step, int) and step < len(node.items):
            node = node.items[step]
            path.append(step)
        elif index == len(location) - 1 and detail["type"] == "missing":
            path.append(step)
    return tuple(path)


def _explained(top: Node, path: tuple[Step, ...], details: list[ErrorDetails]) -> _Problem:
    detail = details[0]
    kind, value = detail["type"], detail["input"]
    if kind == "missing":
        return _problem(top, path, "this is missing")
    if kind == "extra_forbidden":
        return _problem(top, path, f"unknown key {shown(path[-1])}", _meant(path[-1], _known_keys(path[:-1]), word="keys"))
    if detail["loc"][-1] == "[key]":
        return _problem(top, path, f"unknown key {shown(path[-1])}", _meant(path[-1], _allowed(detail), word="keys"))
    allowed = [word for item in details if item["type"] == "literal_error" for word in _allowed(item)]
    kinds = list(dict.fromkeys(_KINDS[item["type"]] for item in details if item["type"] in _KINDS))
    if allowed and not kinds:
        return _problem(top, path, f"{_seen(value)} is not one of its values", _meant(value, allowed))
    if kinds and len(kinds) + (1 if allowed else 0) == len({item["type"] for item in details}):
        wanted = " or ".join([*allowed, *kinds])
        hint = None
        if value is None:
            hint = "Leave the key out if there is nothing to say."
        elif "text" in kinds and isinstance(value, bool | int | float):
            hint = "Put it in quotes."
        return _problem(top, path, f"{_seen(value)} where {wanted} belongs", hint)
    message = detail["msg"].removeprefix("Value error, ")
    message = re.sub(r"^(Input|List|Dictionary|String|Tuple) should", f"{_seen(value)} should", message)
    return _problem(top, path, message)


def _allowed(detail: ErrorDetails) -> list[str]:
    return re.findall(r"'([^']*)'", str(detail.get("ctx", {}).get("expected", "")))


def _known_keys(path: Sequence[Step]) -> tuple[str, ...]:
    """The fields of the section that a path leads to; a step that is no field is an item or a key of a mapping."""
    section: type[Section] = System
    for step in path:
        if isinstance(step, str) and step in section.model_fields:
            inner = _section_in(section.model_fields[step].annotation)
            if inner is None:
                return ()
            section = inner
    return tuple(section.model_fields)


def _section_in(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next((found for part in get_args(annotation) if (found := _section_in(part)) is not None), None)


def _meant(value: object, words: Sequence[str], otherwise: str | None = None, word: str = "values") -> str | None:
    """`Did you mean`, by letters alone; else what there is to choose from."""
    if isinstance(value, str):
        lower = {item.lower(): item for item in words}
        close = difflib.get_close_matches(value.lower()[:100].replace("-", "_").replace(" ", "_"), list(lower), n=1, cutoff=0.6)
        close = close or difflib.get_close_matches(value.lower()[:100], list(lower), n=1, cutoff=0.6)
        if close:
            return f"Did you mean {lower[close[0]]}?"
    return otherwise or (f"Its {word}: {', '.join(words)}." if words else None)


def _seen(value: object) -> str:
    """A value of the file, for a message."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    return shown(value)
