"""YAML as an attack: every limit refuses with a line, and plain values come out as written."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.errors import ConfigurationError
from holdfast.threats.yamlfile import Limits, parse_yaml, read_yaml


def read(text: str | bytes, **limits: int) -> object:
    raw = text.encode() if isinstance(text, str) else text
    return parse_yaml(raw, "f.yaml", Limits(**limits)).unwrap()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("-5", -5),
        ("0.5", 0.5),
        ("1e6", 1e6),
        (".5", 0.5),
        ("5.", 5.0),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("'no'", "no"),
        ('"5"', "5"),
        ("y", "y"),
        ("1:30", "1:30"),
        ("2026-01-01", "2026-01-01"),
        ("0x1f", "0x1f"),
        ("1_000", "1_000"),
        ("!!str 5", "5"),
        ("!!float 5", 5.0),
        ("+.inf", math.inf),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_scalars_follow_the_core_schema(text: str, value: object) -> None:
    found = read(f"a: {text}")["a"]  # type: ignore[index]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("word", ["yes", "No", "on", "OFF"])
def test_words_that_yaml_readers_disagree_about(word: str) -> None:
    with pytest.raises(ConfigurationError, match="without quotes") as caught:
        read(f"b: 1\na: {word}")
    assert caught.value.where == "f.yaml:2"
    assert f"'{word}'" in str(caught.value.hint)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.claim("loop-10")
@pytest.mark.parametrize(
    ("text", "says", "line"),
    [
        (BOMB, "anchors are used more than 20 times", 4),
        ("a: &a [*a]", "not defined above, or holds itself", 1),
        ("a: *nothing", "not defined above", 1),
        ("a: " + "[" * 20 + "]" * 20, "nested more than 20 deep", 1),
        ("a: " + "[" * 500_000, "nest", 1),
        ("a:\n  b: 1\n  b: 2", "the key 'b' is given twice; first on line 2", 3),
        ("a: 1\n---\nb: 2", "second document", 2),
        ("a: !!python/object/apply:os.system ['true']", "tag .* is not allowed", 1),
        ("a: !!python/name:os.system ''", "tag .* is not allowed", 1),
        ("a: !!binary aGk=", "tag .* is not allowed", 1),
        ("a: !mine 5", "tag .* is not allowed", 1),
        ("a: !!int five", "not of the type its tag", 1),
        ("base: &b {x: 1}\na:\n  <<: *b", "merge keys", 3),
        ("[a]: 1", "a key must be a single word", 1),
        ("? {a: b}\n: 1", "a key must be a single word", 1),
        ('a: "x\\0y"', "control character U\\+0000", 1),
        ('a: "\\e[31m"', "control character U\\+001B", 1),
        ("a: [1, 2", "not YAML", 1),
        ("a: b: c", "not YAML", 1),
        ("a:\n\t- b", "not YAML", 2),
        ("a: \x07", "not YAML", 1),
        ("", "empty", None),
        ("# nothing", "empty", None),
        ("- a", "not a mapping", 1),
        (b"a: caf\xe9", "byte 0xe9 is not UTF-8", 1),
        ("b: 1\na: é".encode("latin-1"), "not UTF-8", 2),
        ("a: 1".encode("utf-16"), "not UTF-8", 1),
    ],
)
def test_hostile_files_are_refused_with_a_line(text: str | bytes, says: str, line: int | None) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        read(text)
    assert caught.value.exit_code == 2
    assert caught.value.where == ("f.yaml" if line is None else f"f.yaml:{line}")


def test_the_bomb_is_counted_before_it_is_built() -> None:
    """With the limit on uses lifted, the written-out size still stops it before anything is copied."""
    with pytest.raises(ConfigurationError, match="more than 50,000 values"):
        read(BOMB, aliases=1000)


def test_depth_counts_through_aliases() -> None:
    nested = "a: &a [[[[[[[[[[1]]]]]]]]]]\n"
    assert read(nested + "b: [[[[*a]]]]")
    with pytest.raises(ConfigurationError, match="nested more than 20 deep"):
        read(nested + "b: [[[[[[[[[[*a]]]]]]]]]]")


def test_an_anchor_may_be_used_again() -> None:
    assert read("a: &x {b: 1}\nc: *x") == {"a": {"b": 1}, "c": {"b": 1}}


def test_size_and_kind_of_file(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    large.write_bytes(b"# " + b"x" * 1_000_000)
    for path, says in (
        (large, "larger than 1,000,000 bytes"),
        (tmp_path, "not a file"),
        (tmp_path / "no.yaml", "does not exist"),
    ):
        with pytest.raises(ConfigurationError, match=says):
            read_yaml(path)
    with pytest.raises(ConfigurationError):
        read_yaml(Path("nul\0.yaml"))


def test_a_byte_order_mark_is_no_key() -> None:
    assert read(b"\xef\xbb\xbfa: 1") == {"a": 1}


def test_lines_are_those_of_the_file() -> None:
    top = parse_yaml(b"a: 1\nb:\n  - x\n  - c: 2\n    d: 3\n", "f.yaml")
    assert [top.line_of(path) for path in (["a"], ["b"], ["b", 1], ["b", 1, "d"], ["b", 1, "no"], ["no"])] == [1, 2, 4, 5, 4, 1]


leaves = st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.floats(allow_nan=False) | st.text(max_size=12)
trees = st.dictionaries(
    st.text(min_size=1, max_size=8),
    st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    min_size=1,
    max_size=4,
)


@given(trees)
def test_what_pyyaml_writes_is_read_or_refused_but_never_changed(tree: dict[str, object]) -> None:
    text = yaml.safe_dump(tree, allow_unicode=True)
    try:
        found = parse_yaml(text.encode("utf-8", "surrogatepass"), "f.yaml").unwrap()
    except ConfigurationError:
        return
    assert found == yaml.safe_load(text)


@given(st.binary(max_size=200))
def test_any_bytes_end_in_values_or_in_one_kind_of_error(raw: bytes) -> None:
    message = "f.yaml"
    try:
        parse_yaml(raw, "f.yaml")
    except ConfigurationError as error:
        message = str(error)
    assert message.startswith("f.yaml")
