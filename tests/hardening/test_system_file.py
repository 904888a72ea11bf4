from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.errors import ConfigurationError
from holdfast.hardening.system_file import revise

BLOCK = """# who we are
system: triage   # the name

model:
  path: model.joblib  # trained in May
  recipe: clone

serving:
  reach: internal
  # nobody outside

controls:
- C-AUTH
- C-AUDIT  # since June

# the end
"""
FLOW = """system: triage
model: {path: 'model.joblib', recipe: clone}
serving: {
  reach: internal,   # ward network
}
controls: [C-AUTH]
"""
NEW = {("model", "path"): "models/new model.joblib", ("serving", "answers"): {"round": 2}}


@pytest.mark.parametrize("text", [BLOCK, FLOW])
def test_values_change_and_comments_stay(text):
    got = revise(text, NEW, {("controls",): ["C-SMALL"]})
    tree, old = yaml.safe_load(got), yaml.safe_load(text)
    assert tree["model"] == {"path": "models/new model.joblib", "recipe": "clone"}
    assert tree["serving"] == {"reach": "internal", "answers": {"round": 2}}
    assert tree["controls"] == [*old["controls"], "C-SMALL"]
    assert [line.split("#")[1] for line in text.splitlines() if "#" in line] == [
        line.split("#")[1] for line in got.splitlines() if "#" in line
    ]


def test_missing_sections_are_added_and_words_are_not_repeated():
    got = yaml.safe_load(revise("system: a\n", {("serving", "answers"): "label"}, {("controls",): ["C-OBSCURE"]}))
    assert got == {"system": "a", "serving": {"answers": "label"}, "controls": ["C-OBSCURE"]}
    assert revise(FLOW, {}, {("controls",): ["C-AUTH"]}) == FLOW
    assert yaml.safe_load(revise("serving:\ncontrols: []", {("serving", "answers"): "label"}, {("controls",): ["X"]})) == {
        "serving": {"answers": "label"},
        "controls": ["X"],
    }


def test_a_value_is_replaced_whatever_it_was():
    for old in ("label", "{round: 3}", "\n    round: 3\n    top_k: 2"):
        got = yaml.safe_load(revise(f"serving:\n  answers: {old}\n  reach: internal\n", {("serving", "answers"): "label"}, {}))
        assert got == {"serving": {"answers": "label", "reach": "internal"}}


@given(
    st.text(alphabet=st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\u2028\u2029\x85\ufeff"), max_size=20)
)
def test_any_text_is_written_so_that_it_reads_back(word):
    for text in (BLOCK, FLOW):
        assert yaml.safe_load(revise(text, {("model", "path"): word}, {}))["model"]["path"] == word


def test_a_layout_that_cannot_be_changed_is_refused_with_what_to_do():
    shared = "one: &a {path: x}\nmodel: *a\n"
    with pytest.raises(ConfigurationError) as caught:
        revise("model: !!str text\nmodel: {path: x}\n", {("model", "path"): "y"}, {})
    assert "model.path" in str(caught.value.hint)
    with pytest.raises(ConfigurationError):
        revise("- a\n", {("model", "path"): "y"}, {})
    assert yaml.safe_load(revise(shared, {("one", "path"): "y"}, {}))["one"] == {"path": "y"}
