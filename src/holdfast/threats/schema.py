"""The JSON Schema of the system file, for editors: the form of `System`, with the catalogue's words for each fact."""

from __future__ import annotations

from typing import Any

from holdfast.threats.catalogue import load_catalogue
from holdfast.threats.system import FACT_FIELDS, System

IDENTIFIER = "urn:holdfast:schema:system:1"


def system_schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of `holdfast.yaml`; the same as the committed `schemas/system.schema.json`."""
    catalogue = load_catalogue()
    schema = System.model_json_schema()
    for section in (schema, *schema["$defs"].values()):
        for name, field in section.get("properties", {}).items():
            field.pop("title", None)
            if name in FACT_FIELDS:
                words = {"enum": list(catalogue.facts[name])}
                field["anyOf"] = [words, {"type": "array", "items": words, "minItems": 1}, {"type": "null"}]
    schema["properties"]["controls"]["items"] = {
        "oneOf": [{"const": name, "description": control.name} for name, control in catalogue.controls.items()]
    }
    schema["properties"]["controls"]["uniqueItems"] = True
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": IDENTIFIER,
        **schema,
        "title": "Holdfast system file",
    }
