"""Changes to the text of a system file that keep its comments and layout.

The YAML nodes say where each value stands; a change replaces or inserts text there, and nothing else. The result is parsed
and held against what it should mean before it is given back.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from holdfast.core.errors import ConfigurationError

Path = tuple[str, ...]
_PLAIN = re.compile(r"[A-Za-z_./][\w./-]*")


def revise(text: str, values: Mapping[Path, Any], additions: Mapping[Path, Sequence[str]]) -> str:
    """The text with values set, and words added to lists that lack them.

    Args:
        text: a system file that `read_system` accepts.
        values: new values by their path of keys, such as ("serving", "answers").
        additions: words by the path of the list they belong to, such as ("controls",).

    Raises:
        ConfigurationError: the file is laid out in a way that this cannot change; the hint says what to change by hand.
    """
    wanted = yaml.safe_load(text)
    for path, value in values.items():
        text = _set(text, path, value)
        _put(wanted, path, value)
    for path, words in additions.items():
        for word in words:
            held = _get(wanted, path) or []
            if word in held:
                continue
            text = _append(text, path, word)
            _put(wanted, path, [*held, word])
    try:
        understood = yaml.safe_load(text)
    except yaml.YAMLError:
        understood = None
    if understood != wanted:
        by_hand = [f"{'.'.join(path)}: {_render(value)}" for path, value in {**values, **additions}.items()]
        raise ConfigurationError(
            "the layout of the system file cannot be changed here", hint=f"Set {'; '.join(by_hand)} by hand."
        )
    return text


def _set(text: str, path: Path, value: Any) -> str:
    node = _root(text)
    for depth, key in enumerate(path):
        if not isinstance(node, yaml.MappingNode):
            return _replace(text, node, _nested(path[depth:], value))
        child = _child(node, key)
        if child is None:
            return _insert_key(text, node, key, _nested(path[depth + 1 :], value))
        node = child
    return _replace(text, node, _render(value))


def _append(text: str, path: Path, word: str) -> str:
    node: yaml.Node | None = _root(text)
    for key in path:
        node = _child(node, key) if isinstance(node, yaml.MappingNode) else None
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        return _set(text, path, [word])
    if node.flow_style:
        return _before_bracket(text, node, word)
    column = node.start_mark.column
    return _after_line(text, _end(node), f"{' ' * column}- {_render(word)}")


def _replace(text: str, node: yaml.Node, rendered: str) -> str:
    start, end = node.start_mark.index, _end(node)
    gap = " " if start == end and start and text[start - 1] == ":" else ""
    return text[:start] + gap + rendered + text[end:]


def _insert_key(text: str, node: yaml.MappingNode, key: str, rendered: str) -> str:
    if node.flow_style:
        return _before_bracket(text, node, f"{key}: {rendered}")
    column = node.value[0][0].start_mark.column
    return _after_line(text, _end(node), f"{' ' * column}{key}: {rendered}")


def _before_bracket(text: str, node: yaml.CollectionNode, rendered: str) -> str:
    place = node.end_mark.index - 1
    last = node.value[-1] if node.value else None
    last = last[1] if isinstance(last, tuple) else last
    ended = last is not None and "," in re.sub("#.*", "", text[last.end_mark.index : place])
    comma = "" if last is None or ended else ", "
    return text[:place] + comma + (" " if ended else "") + rendered + text[place:]


def _after_line(text: str, place: int, line: str) -> str:
    end = text.find("\n", place)
    return f"{text}\n{line}\n" if end < 0 else f"{text[:end]}\n{line}{text[end:]}"


def _end(node: yaml.Node) -> int:
    """Where the node's own text ends; a block's end mark lies behind the blank lines and comments that follow it."""
    if isinstance(node, yaml.MappingNode) and not node.flow_style:
        return max((_end(part) for pair in node.value for part in pair), default=int(node.end_mark.index))
    if isinstance(node, yaml.SequenceNode) and not node.flow_style:
        return max((_end(part) for part in node.value), default=int(node.end_mark.index))
    return int(node.end_mark.index)


def _root(text: str) -> yaml.Node:
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(node, yaml.MappingNode):
        raise ConfigurationError("the system file is not a mapping of keys to values")
    return node


def _child(node: yaml.Node, key: str) -> yaml.Node | None:
    return next((value for name, value in node.value if name.value == key), None)


def _nested(path: Path, value: Any) -> str:
    for key in reversed(path):
        value = {key: value}
    return _render(value)


def _render(value: Any) -> str:
    if isinstance(value, str):
        meant = yaml.safe_load(value) if _PLAIN.fullmatch(value) else None
        return value if isinstance(meant, str) else _quoted(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_render(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ", ".join(_render(item) for item in value) + "]"
    return json.dumps(value)


def _quoted(value: str) -> str:
    """A double-quoted scalar; JSON's escapes are YAML's, but for pairs of surrogates."""
    return '"' + "".join(character if ord(character) > 0xFFFF else json.dumps(character)[1:-1] for character in value) + '"'


def _get(tree: Any, path: Path) -> Any:
    for key in path:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return copy.copy(tree)


def _put(tree: dict[str, Any], path: Path, value: Any) -> None:
    for key in path[:-1]:
        if not isinstance(tree.get(key), dict):
            tree[key] = {}
        tree = tree[key]
    tree[path[-1]] = dict(value) if isinstance(value, Mapping) else value
