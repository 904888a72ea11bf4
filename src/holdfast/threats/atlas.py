"""Checking the catalogue's identifiers against another release of MITRE ATLAS.

ATLAS distributes one YAML file a release, in one of two forms: up to 5.6.0 lists under `matrices`, and since the content
releases are named by date (format version 6) mappings from id to object, with the links under `relationships`. Both are
read, as hostile input. Source: mitre-atlas/atlas-data, README of `dist/`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.core.errors import ConfigurationError
from holdfast.core.evidence import Document
from holdfast.core.files import read_file
from holdfast.threats.catalogue import Catalogue, load_catalogue
from holdfast.threats.yamlfile import Limits, Node, read_yaml, shown

LIMITS = Limits(size=8_000_000, depth=30, aliases=10_000, nodes=500_000)
_ID = re.compile(r"AML\.(?:TA\d{4}|T\d{4}(?:\.\d{3})?|M\d{4}|CS\d{4})\Z")
_KINDS = ("techniques", "mitigations", "case-studies")


class AtlasChange(Document):
    """An identifier that the other release lacks or calls otherwise.

    Attributes:
        id: the identifier.
        name: what the catalogue calls it; empty where the catalogue gives no name.
        new_name: what the other release calls it; empty if it has vanished.
        used_by: the catalogue's threats, controls and incidents that carry it.
    """

    id: str
    name: str = ""
    new_name: str = ""
    used_by: tuple[str, ...]


class LostLink(Document):
    """A mitigation that the other release no longer links to any technique of a threat."""

    threat: str
    mitigation: str


class AtlasReport(Document):
    """How the catalogue stands against another release.

    Attributes:
        version: of the file that was read; checked_against: of the release that the catalogue was written against.
        techniques, mitigations, case_studies: how many the file holds.
        checked: how many identifiers were looked up.
        vanished, renamed: what has changed; lost_links: links that ATLAS made and makes no longer.
    """

    version: str
    checked_against: str
    techniques: int
    mitigations: int
    case_studies: int
    checked: int
    vanished: tuple[AtlasChange, ...] = ()
    renamed: tuple[AtlasChange, ...] = ()
    lost_links: tuple[LostLink, ...] = ()

    @property
    def unchanged(self) -> bool:
        """Whether every identifier is there under its name, and every link still stands."""
        return not (self.vanished or self.renamed or self.lost_links)


@dataclass(kw_only=True)
class _Release:
    version: str = ""
    names: dict[str, dict[str, str]] = field(default_factory=lambda: {kind: {} for kind in _KINDS})
    links: set[tuple[str, str]] = field(default_factory=set)


def check_atlas(path: Path, catalogue: Catalogue | None = None) -> AtlasReport:
    """Look up every ATLAS identifier of the catalogue in another release.

    Raises:
        ConfigurationError: the file is not an ATLAS release of either form, or holds none of the catalogue's techniques.
    """
    catalogue = catalogue or load_catalogue()
    release = _read(path)
    used = _used(catalogue)
    names = {**catalogue.names.atlas_techniques, **catalogue.names.atlas_mitigations}
    present = {name: title for kind in _KINDS for name, title in release.names[kind].items()}
    if not set(catalogue.names.atlas_techniques) & set(release.names["techniques"]):
        raise ConfigurationError("the file holds none of the techniques that the catalogue names", where=str(path))
    return AtlasReport(
        version=release.version,
        checked_against=catalogue.sources.atlas.data_version,
        techniques=len(release.names["techniques"]),
        mitigations=len(release.names["mitigations"]),
        case_studies=len(release.names["case-studies"]),
        checked=len(used),
        vanished=tuple(
            AtlasChange(id=name, name=names.get(name, ""), used_by=users) for name, users in used.items() if name not in present
        ),
        renamed=tuple(
            AtlasChange(id=name, name=names[name], new_name=present[name], used_by=users)
            for name, users in used.items()
            if name in present and name in names and present[name] != names[name]
        ),
        lost_links=tuple(_lost(catalogue, release, present)),
    )


def _used(catalogue: Catalogue) -> Mapping[str, tuple[str, ...]]:
    users: dict[str, list[str]] = {}
    for threat in catalogue.threats:
        for name in (*threat.atlas, *threat.mitigations):
            users.setdefault(name, []).append(threat.id)
    for control_id, control in catalogue.controls.items():
        for name in control.atlas_mitigations:
            users.setdefault(name, []).append(control_id)
    for incident in catalogue.incidents:
        for name in (*incident.techniques, *([incident.atlas_case] if incident.atlas_case else [])):
            users.setdefault(name, []).append(incident.id)
    return {name: tuple(dict.fromkeys(users[name])) for name in sorted(users)}


def _lost(catalogue: Catalogue, release: _Release, present: Mapping[str, str]) -> Iterator[LostLink]:
    for threat in catalogue.threats:
        techniques = {*threat.atlas, *(name.rpartition(".")[0] for name in threat.atlas if name.count(".") == 2)}
        for mitigation in threat.atlas_confirmed_mitigations:
            if mitigation in present and not any((mitigation, technique) in release.links for technique in techniques):
                yield LostLink(threat=threat.id, mitigation=mitigation)


def _read(path: Path) -> _Release:
    try:
        top = read_yaml(path, LIMITS)
    except ConfigurationError:
        _refuse_pointer(path)
        raise
    release = _Release()
    if top.get("techniques").fields:
        release.version = _text(top.get("collection").get("version"))
        for kind in _KINDS:
            for name, item in top.get(kind).fields.items():
                _add(release, kind, name, item, path)
        for source, relations in top.get("relationships").fields.items():
            for link in relations.get("mitigates").items:
                release.links.add((source, _text(link.get("target"))))
    else:
        release.version = _text(top.get("version"))
        for holder in (top, *top.get("matrices").items):
            for kind in _KINDS:
                for item in holder.get(kind).items:
                    name = _text(item.get("id"))
                    _add(release, kind, name, item, path)
                    for link in item.get("techniques").items if kind == "mitigations" else ():
                        release.links.add((name, _text(link.get("id")) or _text(link)))
    if not release.version or not release.names["techniques"]:
        raise ConfigurationError(
            "this is not a release of MITRE ATLAS: it states no version or no techniques",
            where=str(path),
            hint="Give the file ATLAS.yaml or ATLAS-YEAR.MONTH.yaml from atlas-data's folder dist.",
        )
    return release


def _add(release: _Release, kind: str, name: str, item: Node, path: Path) -> None:
    title = _text(item.get("name"))
    if not _ID.match(name) or not title:
        raise ConfigurationError(f"{shown(name)} in {kind} has no ATLAS id or no name", where=f"{path}:{item.line}")
    release.names[kind][name] = title


def _refuse_pointer(path: Path) -> None:
    """ATLAS-latest.yaml is a link; downloaded raw, it holds nothing but the name of the file it stands for."""
    try:
        text = read_file(path, 300).decode("utf-8").strip()
    except (ConfigurationError, ValueError):
        return
    if re.fullmatch(r"[\w./-]+\.yaml", text):
        raise ConfigurationError(
            f"the file only names another, {shown(text)}", where=str(path), hint="Download the file that it names."
        )


def _text(node: Node) -> str:
    value = node.value
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
