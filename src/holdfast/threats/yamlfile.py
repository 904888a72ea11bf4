"""Hostile YAML: read within limits, keep line numbers, build plain values only.

The parser's events are turned into nodes one by one, so that nothing recurses and nothing is constructed that was not
counted first:

1. the file is read up to a size limit and must be UTF-8;
2. anchors may be used again only so often, and only as long as the whole stays small when it is written out;
3. tags other than those of YAML's JSON schema, merge keys, duplicate keys and several documents are refused;
4. unquoted scalars are read by YAML 1.2's core schema. The words that YAML 1.1 took for booleans (`yes`, `no`, `on`,
   `off`) are refused unless quoted, because readers of YAML disagree about them.

Source: YAML 1.2.2, section 10.3 (core schema); `(yaml.org/type)` for the YAML 1.1 words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from holdfast.core.errors import ConfigurationError
from holdfast.core.files import open_file

Scalar = str | int | float | bool | None
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_AMBIGUOUS = re.compile(r"(?:yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF)\Z")
_INTEGER = re.compile(r"[-+]?[0-9]+\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_CONSTANTS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **{sign + inf: float(sign + "inf") for sign in ("", "+", "-") for inf in (".inf", ".Inf", ".INF")},
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_MAX_DIGITS = 300


class FileMissing(ConfigurationError):
    """There is no such file."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a file may cost.

    Attributes:
        size: bytes.
        depth: nested lists and mappings.
        aliases: uses of anchors.
        nodes: scalars, lists and mappings once every alias is written out.
    """

    size: int = 1_000_000
    depth: int = 20
    aliases: int = 20
    nodes: int = 50_000


@dataclass(kw_only=True)
class Node:
    """A value with the line it starts on.

    Attributes:
        value: a scalar, a list of nodes, or a mapping from key to node.
        line: 1-based.
        keys: the line of each key of a mapping.
        plain: whether a scalar was written without quotes.
        nodes, height: the size and depth once aliases are written out.
    """

    value: Scalar | list[Node] | dict[str, Node]
    line: int
    keys: dict[str, int] = field(default_factory=dict)
    plain: bool = False
    nodes: int = 1
    height: int = 0

    @property
    def fields(self) -> Mapping[str, Node]:
        """The mapping's keys and values; empty for anything else."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def items(self) -> Sequence[Node]:
        """The list's items; empty for anything else."""
        return self.value if isinstance(self.value, list) else ()

    def get(self, key: str) -> Node:
        """The value of a key, or `NOTHING`."""
        return self.fields.get(key, NOTHING)

    def unwrap(self) -> Any:
        """The value as plain dictionaries, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: node.unwrap() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.unwrap() for node in self.value]
        return self.value

    def line_of(self, path: Sequence[str | int]) -> int:
        """The line of the key or item at `path`, or of the closest thing above it that exists."""
        node, line = self, self.line
        for step in path:
            if isinstance(step, str) and step in node.fields:
                line, node = node.keys[step], node.fields[step]
            elif isinstance(step, int) and 0 <= step < len(node.items):
                node = node.items[step]
                line = node.line
            else:
                break
        return line


NOTHING = Node(value=None, line=1)
"""Stands for a value that is not there."""


def read_yaml(path: Path, limits: Limits = Limits()) -> Node:
    """Read one YAML document whose top is a mapping.

    Raises:
        ConfigurationError: with file and line, if the file cannot be read, is too large, is no UTF-8, no YAML, or uses
            something that is refused here.
    """
    name = str(path)
    try:
        file = open_file(path)
        if file is None:
            raise FileMissing("the file does not exist", where=name)
        with file:
            raw = file.read(limits.size + 1)
    except OSError as error:
        raise ConfigurationError(f"the file cannot be read: {error.strerror}", where=name) from error
    return parse_yaml(raw, name, limits)


def parse_yaml(raw: bytes, name: str, limits: Limits = Limits()) -> Node:
    """As `read_yaml`, for bytes already read; `name` is what errors call them."""
    if len(raw) > limits.size:
        raise ConfigurationError(f"the file is larger than {limits.size:,} bytes", where=name)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(
            f"byte 0x{raw[error.start]:02x} is not UTF-8", where=f"{name}:{line}", hint="Save the file in UTF-8."
        ) from error
    try:
        top = _Builder(name, limits).build(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{min(mark.line, len(text.splitlines()) - 1) + 1}" if mark else name
        context = f" {error.context}" if error.context else ""
        raise ConfigurationError(f"this is not YAML: {error.problem}{context}", where=where) from error
    except yaml.YAMLError as error:
        found = re.search(r"position (\d+)", str(error))
        line = text.count("\n", 0, int(found[1])) + 1 if found else 1
        reason = str(error).splitlines()[0]
        raise ConfigurationError(f"this is not YAML: {reason}", where=f"{name}:{line}") from error
    if top is None:
        raise ConfigurationError("the file is empty", where=name)
    if not isinstance(top.value, dict):
        raise ConfigurationError("the file is not a mapping of keys to values", where=f"{name}:{top.line}")
    return top


class _Builder:
    """Builds nodes from the parser's events, from the outside in and back."""

    def __init__(self, name: str, limits: Limits) -> None:
        self.name = name
        self.limits = limits
        self.open: list[Node] = []
        self.pending: list[tuple[str, int] | None] = []
        self.anchored: list[str | None] = []
        self.anchors: dict[str, Node] = {}
        self.aliases = 0
        self.nodes = 0
        self.documents = 0
        self.top: Node | None = None

    def build(self, text: str) -> Node | None:
        for event in yaml.parse(text, Loader=_Loader):
            line = event.start_mark.line + 1 if event.start_mark else 1
            if isinstance(event, yaml.DocumentStartEvent):
                self.documents += 1
                if self.documents > 1:
                    self.refuse("a second document begins here", line, "Keep one document in the file.")
            elif isinstance(event, yaml.ScalarEvent):
                self.scalar(event, line)
            elif isinstance(event, yaml.AliasEvent):
                self.alias(event, line)
            elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
                self.start(event, line)
            elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                self.end()
        return self.top

    def refuse(self, what: str, line: int, hint: str | None = None) -> None:
        raise ConfigurationError(what, where=f"{self.name}:{line}", hint=hint)

    def count(self, size: int, line: int) -> None:
        self.nodes += size
        if self.nodes > self.limits.nodes:
            self.refuse(f"the file holds more than {self.limits.nodes:,} values once its anchors are written out", line)

    def at_key(self) -> bool:
        return bool(self.open) and isinstance(self.open[-1].value, dict) and self.pending[-1] is None

    def scalar(self, event: Any, line: int) -> None:
        bad = _UNPRINTABLE.search(event.value)
        if bad:
            self.refuse(f"the text holds the control character U+{ord(bad[0]):04X}", line)
        plain = not event.style and event.tag is None
        if self.at_key():
            self.key(event, line)
            return
        if event.tag not in (None, "!", *(_TAG + kind for kind in ("str", "int", "float", "bool", "null"))):
            self.refuse(f"the tag {shown(event.tag)} is not allowed", line, "Write plain values without tags.")
        if plain and _AMBIGUOUS.match(event.value):
            self.refuse(
                f"{event.value} without quotes means a word to some readers of YAML and a boolean to others",
                line,
                f"Write '{event.value}' for the word, or true or false for the boolean.",
            )
        node = Node(value=self.resolve(event, plain, line), line=line, plain=plain)
        self.count(1, line)
        self.attach(node, event.anchor)

    def key(self, event: Any, line: int) -> None:
        mapping = self.open[-1]
        key = str(event.value)
        if event.tag not in (None, "!", _TAG + "str"):
            self.refuse(f"the tag {shown(event.tag)} is not allowed on a key", line)
        if event.anchor:
            self.refuse("a key cannot carry an anchor", line)
        if key == "<<" and not event.style:
            self.refuse("merge keys (<<) are not allowed", line, "Write the fields out.")
        if key in mapping.keys:
            self.refuse(f"the key {shown(key)} is given twice; first on line {mapping.keys[key]}", line)
        self.count(1, line)
        self.pending[-1] = (key, line)

    def resolve(self, event: Any, plain: bool, line: int) -> Scalar:
        text = str(event.value)
        kind = (event.tag or "").removeprefix(_TAG)
        if not plain and kind in ("", "!", "str"):
            return text
        value: Scalar = text
        if text in _CONSTANTS:
            value = _CONSTANTS[text]
        elif len(text) <= _MAX_DIGITS and _INTEGER.match(text):
            value = int(text)
        elif len(text) <= _MAX_DIGITS and _FLOAT.match(text):
            value = float(text)
        if kind in ("", "!"):
            return value
        if kind == "float" and type(value) is int:
            return float(value)
        accepted = {"int": int, "float": float, "bool": bool, "null": type(None)}[kind]
        if type(value) is not accepted:
            self.refuse(f"{shown(text)} is not of the type its tag !!{kind} says", line)
        return value

    def alias(self, event: Any, line: int) -> None:
        self.aliases += 1
        if self.aliases > self.limits.aliases:
            self.refuse(f"anchors are used more than {self.limits.aliases} times", line, "Write the values out.")
        if self.at_key():
            self.refuse("a key cannot be an alias", line)
        target = self.anchors.get(event.anchor)
        if target is None:
            self.refuse(f"the anchor {shown(event.anchor)} is not defined above, or holds itself", line)
            return
        if len(self.open) + target.height > self.limits.depth:
            self.refuse(f"lists and mappings are nested more than {self.limits.depth} deep", line)
        self.count(target.nodes, line)
        self.attach(target, None)

    def start(self, event: Any, line: int) -> None:
        mapping = isinstance(event, yaml.MappingStartEvent)
        if self.at_key():
            self.refuse("a key must be a single word or text", line)
        if event.tag not in (None, "!", _TAG + ("map" if mapping else "seq")):
            self.refuse(f"the tag {shown(event.tag)} is not allowed", line, "Write plain values without tags.")
        if len(self.open) >= self.limits.depth:
            self.refuse(f"lists and mappings are nested more than {self.limits.depth} deep", line)
        self.count(1, line)
        self.open.append(Node(value={} if mapping else [], line=line, height=1))
        self.pending.append(None)
        self.anchored.append(event.anchor)

    def end(self) -> None:
        node = self.open.pop()
        self.pending.pop()
        self.attach(node, self.anchored.pop())

    def attach(self, node: Node, anchor: str | None) -> None:
        if anchor:
            self.anchors[anchor] = node
        if not self.open:
            self.top = node
            return
        parent = self.open[-1]
        parent.nodes += node.nodes
        parent.height = max(parent.height, node.height + 1)
        if isinstance(parent.value, dict):
            waiting = self.pending[-1]
            if waiting is not None:
                parent.value[waiting[0]], parent.keys[waiting[0]] = node, waiting[1]
                self.pending[-1] = None
        elif isinstance(parent.value, list):
            parent.value.append(node)


def shown(text: object) -> str:
    """Text from a file, for a message: quoted, shortened, and without control characters."""
    plain = repr(text) if isinstance(text, str) else str(text)
    return plain if len(plain) <= 60 else plain[:56] + "...'"
