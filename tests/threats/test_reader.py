"""Reading the system file: what is right is taken as it stands, what is wrong is said with line, field and what was meant."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.core.errors import ConfigurationError
from holdfast.threats.catalogue import load_catalogue
from holdfast.threats.reader import InvalidSystem, parse_system, read_system
from holdfast.threats.schema import system_schema
from holdfast.threats.system import FACT_FIELDS, System

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
HOSPITAL = (HERE / "hospital.yaml").read_text(encoding="utf-8")
PAGE = ROOT / "docs" / "reference" / "system-file.md"
SMALLEST = "system: s\nmodel: {path: m.joblib}\n"


def problems(text: str) -> list[tuple[str, str, str]]:
    """(where, what, hint) of each problem."""
    with pytest.raises(ConfigurationError) as caught:
        parse_system(text)
    found = caught.value.problems if isinstance(caught.value, InvalidSystem) else (caught.value,)
    return [(item.where or "", item.what, item.hint or "") for item in found]


def test_the_hospital_file() -> None:
    system = read_system(HERE / "hospital.yaml")
    assert system.system == "treatment-recommender"
    assert system.actors[2].poison_share is not None
    assert system.actors[2].poison_share.high == 0.03
    assert system.impact["confidentiality"].per_event.high == 4_000_000
    assert system.facts()["data_sources"] == ("internal", "partner")
    assert "weights_known_to" not in system.facts()
    assert len(HOSPITAL.strip().splitlines()) == 19


def test_the_smallest_file() -> None:
    system = parse_system(SMALLEST)
    assert system.facts() == {}
    assert system.data == []


CASES: list[tuple[str, str, str, str]] = [
    (SMALLEST + "serving: {rech: internal}", "holdfast.yaml:3: serving.rech", "unknown key 'rech'", "Did you mean reach?"),
    (SMALLEST + "servng: {}", "holdfast.yaml:3: servng", "unknown key 'servng'", "Did you mean serving?"),
    (SMALLEST + "zzz: {}", "holdfast.yaml:3: zzz", "unknown key 'zzz'", "Its keys: system, owner,"),
    (SMALLEST + "serving:\n  reach: intrnet", "holdfast.yaml:4: serving.reach", "'intrnet' is not one", "Did you mean internet?"),
    (SMALLEST + "serving:\n  reach: [internal, 3]", "holdfast.yaml:4: serving.reach[1]", "3 is not one", "Its values: none,"),
    (SMALLEST + "serving: {reach: []}", "holdfast.yaml:3: serving.reach", "the list is empty", "Leave the fact out"),
    (SMALLEST + "serving: {reach: {a: b}}", "holdfast.yaml:3: serving.reach", "a mapping is not one", "Its values"),
    (SMALLEST + "lifecycle: {federated: cross-silo}", "holdfast.yaml:3: lifecycle.federated", "'cross-silo'", "cross_silo?"),
    (SMALLEST + "people: {decision: automatc}", "holdfast.yaml:3: people.decision", "'automatc'", "Did you mean automatic?"),
    (
        SMALLEST + "impact: {integrty: {per_event: {low: 1, high: 2}}}",
        "holdfast.yaml:3: impact.integrty",
        "unknown key",
        "integrity?",
    ),
    (
        SMALLEST + "impact: {integrity: {per_event: {low: 3, high: 2}}}",
        "holdfast.yaml:3: impact.integrity.per_event",
        "is below low",
        "",
    ),
    (SMALLEST + "impact: {integrity: {per_event: {low: 3}}}", "holdfast.yaml:3: impact.integrity.per_event.high", "missing", ""),
    (SMALLEST + "impact: {integrity: {per_event: {low: true, high: 2}}}", "per_event.low", "true where a number belongs", ""),
    (SMALLEST + 'impact: {integrity: {per_event: {low: "1", high: 2}}}', "per_event.low", "'1' where a number belongs", ""),
    (SMALLEST + "impact: {integrity: {per_event: {low: .nan, high: 2}}}", "per_event.low", "a finite number", ""),
    (SMALLEST + "appetite: {annual_loss: -5}", "holdfast.yaml:3: appetite.annual_loss", "-5 should be greater than 0", ""),
    (SMALLEST + "appetite: {annual_loss: .inf}", "holdfast.yaml:3: appetite.annual_loss", "a finite number", ""),
    (SMALLEST + "controls: [C-AUHT]", "holdfast.yaml:3: controls[0]", "no control 'C-AUHT'", "Did you mean C-AUTH?"),
    (SMALLEST + "controls: [C-AUTH, C-AUTH]", "holdfast.yaml:3: controls[1]", "given twice", ""),
    (SMALLEST + "owner: 5", "holdfast.yaml:3: owner", "5 where text belongs", "Put it in quotes."),
    (SMALLEST + "owner: true", "holdfast.yaml:3: owner", "true where text belongs", "Put it in quotes."),
    (SMALLEST + "owner: no", "holdfast.yaml:3", "no without quotes", "Write 'no'"),
    (SMALLEST + "people: []", "holdfast.yaml:3: people", "an empty list where a mapping", ""),
    (SMALLEST + "serving: {answers: labels}", "holdfast.yaml:3: serving.answers", "'labels' where label or a mapping", ""),
    (SMALLEST + "serving: {answers: {rond: 2}}", "holdfast.yaml:3: serving.answers.rond", "unknown key", "Did you mean round?"),
    (SMALLEST + "serving: {answers: {round: 0}}", "holdfast.yaml:3: serving.answers.round", "greater than or equal to 1", ""),
    (SMALLEST + "domain: {costs: {reach: -1}}", "holdfast.yaml:3: domain.costs.reach", "greater than or equal to 0", ""),
    (SMALLEST + "domain: {bounds: {a: [3, 1]}}", "holdfast.yaml:3: domain", "wrong way round", ""),
    (SMALLEST + "domain: {low: 1, high: 0}", "holdfast.yaml:3: domain", "not above low", ""),
    (SMALLEST + "domain: {bounds: {a: [.nan, 1]}}", "domain.bounds.a[0]", "a finite number", ""),
    (SMALLEST + "defaults: [impact.integrty]", "holdfast.yaml:3: defaults[0]", "no field 'impact.integrty'", ""),
    (SMALLEST + "defaults: [model.pth]", "holdfast.yaml:3: defaults[0]", "no field", "Did you mean model.path?"),
    (SMALLEST + "actors: [{name: a, access: score}]", "holdfast.yaml:3: actors[0].access", "'score'", "Did you mean scores?"),
    (SMALLEST + "actors: [{name: a, access: none}, {name: a, access: none}]", "actors[1].name", "given twice", ""),
    (
        SMALLEST + "actors: [{name: a, access: training rows, poison_share: {typical: 1, high: 3}}]",
        "actors[0].poison_share.high",
        "3 is more than all",
        "1 % is 0.01.",
    ),
    (
        SMALLEST + "actors: [{name: a, access: none, attempts_per_year: {low: 1, high: 3, unit: EUR}}]",
        "actors[0].attempts_per_year.unit",
        "take no unit",
        "",
    ),
    (SMALLEST + "data: [{name: a, path: a.csv}, {name: a, path: b.csv}]", "data[1].name", "given twice", ""),
    (SMALLEST + "data: [{name: a}]", "data[0].path", "this is missing", ""),
    ("model: {path: m}", "holdfast.yaml:1: system", "this is missing", ""),
    ("system: s", "holdfast.yaml:1: model", "this is missing", ""),
    ("system: s\nmodel: {}", "holdfast.yaml:2: model", "exactly one of path, endpoint and entry", ""),
    ("system: s\nmodel: {path: a, endpoint: b}", "holdfast.yaml:2: model", "exactly one of path", ""),
    ("system: ''\nmodel: {path: a}", "holdfast.yaml:1: system", "at least 1 character", ""),
    ("system: s\nmodel: {path: a, classes: [1.5, 2]}", "holdfast.yaml:2: model.classes[0]", "1.5 where text or", ""),
    ("system: s\nmodel: {path: a, labels: internal}", "holdfast.yaml:2: model.labels", "unknown key 'labels'", ""),
]


@pytest.mark.parametrize(("text", "where", "what", "hint"), CASES)
def test_one_problem(text: str, where: str, what: str, hint: str) -> None:
    found = problems(text)
    assert len(found) == 1, found
    assert found[0][0].startswith("holdfast.yaml:")
    assert where in found[0][0]
    assert what in found[0][1]
    assert hint in found[0][2]


def test_units_of_loss_must_agree() -> None:
    base = SMALLEST + "impact:\n  integrity: {per_event: {low: 1, high: 2, unit: EUR}}\n"
    parse_system(base + "  availability: {per_event: {low: 1, high: 2, unit: EUR}}\n")
    for unit in (", unit: USD", ""):
        (where, what, _), *others = problems(base + f"  availability: {{per_event: {{low: 1, high: 2{unit}}}}}\n")
        assert where == "holdfast.yaml:5: impact.availability.per_event.unit"
        assert "impact.integrity has the unit 'EUR'" in what
        assert not others


def test_defaults_name_fields_and_items() -> None:
    text = (
        HOSPITAL
        + "defaults: [impact.integrity, serving.reach, actors.curious clinician.attempts_per_year, data.0.labels, appetite]\n"
    )
    assert len(parse_system(text).defaults) == 5


def test_all_problems_at_once_in_the_order_of_the_file() -> None:
    found = problems(
        "system: 5\nmodel: {path: a, artifact_format: pickel}\nserving: {rech: x, auth: kez}\ncontrols: [C-X]\nowner: ''\n"
        "impact: {integrity: {per_event: {low: 5, high: 1}}}\n"
    )
    assert [where.split(": ")[1] for where, _, _ in found] == [
        "system",
        "model.artifact_format",
        "serving.auth",
        "serving.rech",
        "controls[0]",
        "owner",
        "impact.integrity.per_event",
    ]
    assert [int(where.split(":")[1]) for where, _, _ in found] == [1, 2, 3, 3, 4, 5, 6]


def test_many_problems_are_counted_and_cut() -> None:
    with pytest.raises(InvalidSystem) as caught:
        parse_system(SMALLEST + "controls: [" + ", ".join(f"X{index}" for index in range(100)) + "]")
    assert "100 problems" in str(caught.value)
    assert "and 75 more" in str(caught.value)
    assert len(str(caught.value)) < 5000
    assert "100 problems" in str(pickle.loads(pickle.dumps(caught.value)))


def test_a_missing_file_says_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist") as caught:
        read_system(tmp_path / "holdfast.yaml")
    assert "holdfast init" in str(caught.value)


@pytest.mark.claim("loop-10")
def test_messages_never_carry_control_characters_or_endless_text() -> None:
    for text in (
        SMALLEST + 'serving: {"\\u202e<script>alert(1)</script>": 1}',
        SMALLEST + f"serving: {{reach: {'x' * 10_000}}}",
        SMALLEST + f'"{"k" * 900}": 1',
    ):
        with pytest.raises(ConfigurationError) as caught:
            parse_system(text)
        assert len(str(caught.value)) < 1500
        assert "\u202e" not in str(caught.value)
        assert all(char.isprintable() or char == "\n" for char in str(caught.value))


def test_every_fact_of_the_catalogue_is_a_field_and_back() -> None:
    assert set(FACT_FIELDS) == set(load_catalogue().facts)


def test_an_empty_list_states_nothing_even_without_the_reader() -> None:
    system = System.model_validate({"system": "s", "model": {"path": "m"}, "serving": {"reach": []}})
    assert "reach" not in system.facts()


def test_the_committed_schema_is_the_generated_one() -> None:
    committed = json.loads((ROOT / "schemas" / "system.schema.json").read_text(encoding="utf-8"))
    assert committed == system_schema(), "run: holdfast schema system --output schemas/system.schema.json"


def test_the_schema_is_closed_described_and_knows_the_words() -> None:
    schema = system_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    for name, section in {"System": schema, **schema["$defs"]}.items():
        assert section["additionalProperties"] is False, name
        assert section["description"], name
        for key, field in section["properties"].items():
            described = field.get("description") or schema["$defs"].get(field.get("$ref", "").rpartition("/")[2], {}).get(
                "description"
            )
            assert described or "anyOf" in field, (name, key)
    reach = schema["$defs"]["ServingSection"]["properties"]["reach"]
    assert reach["anyOf"][0] == {"enum": ["none", "internal", "partner", "internet"]}


def agree(document: dict[str, Any]) -> tuple[bool, bool]:
    """Whether the reader and the schema accept a document."""
    try:
        parse_system(yaml.safe_dump(document))
        read = True
    except ConfigurationError:
        read = False
    return read, jsonschema.Draft202012Validator(system_schema()).is_valid(document)


def test_the_schema_accepts_the_hospital_file() -> None:
    assert agree(yaml.safe_load(HOSPITAL)) == (True, True)


@pytest.mark.parametrize(("text", "where", "what", "hint"), [case for case in CASES if "no without" not in case[2]])
def test_the_schema_accepts_only_what_it_can_not_see(text: str, where: str, what: str, hint: str) -> None:
    """What one field alone makes wrong, an editor shows too; what only several fields together make wrong, it cannot."""
    read, valid = agree(yaml.safe_load(text))
    assert not read
    unseen = (
        "below low",
        "not above low",
        "wrong way",
        "no field",
        "more than all",
        "no unit",
        "exactly one",
        "given twice",
        "finite",
    )
    assert not valid or any(word in what for word in unseen)


values = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.sampled_from(["internal", "x", "none", ""])
    | st.lists(st.integers(), max_size=2)
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_change_to_a_good_file_is_accepted_or_explained(data: st.DataObject) -> None:
    """Whatever is put at any place of the file, the reader answers with a System or with the place of the problem."""
    document = yaml.safe_load(HOSPITAL)
    node: Any = document
    while isinstance(node, dict | list) and node:
        step = data.draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        if not isinstance(node[step], dict | list) or not node[step] or data.draw(st.booleans()):
            node[step] = data.draw(values)
            break
        node = node[step]
    message = ""
    try:
        parse_system(yaml.safe_dump(document))
    except ConfigurationError as error:
        message = str(error)
    assert message == "" or re.match(r"holdfast\.yaml:", message)


def test_every_example_of_the_reference_is_read() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S)
    assert len(blocks) >= 2
    for block in blocks:
        parse_system(block if block.lstrip().startswith(("system:", "#")) else SMALLEST + block)


def test_the_reference_names_every_field_and_every_word() -> None:
    text = PAGE.read_text(encoding="utf-8")
    schema = system_schema()
    for section in (schema, *schema["$defs"].values()):
        for key in section["properties"]:
            assert f"`{key}`" in text, key
    for fact, words in load_catalogue().facts.items():
        for word in words:
            assert f"`{word}`" in text, (fact, word)
