"""Assessments as files, with their seal and their evidence's digests checked."""

from __future__ import annotations

from pathlib import Path

from holdfast.assessment.document import Assessment
from holdfast.core.errors import IntegrityFailure
from holdfast.core.files import read_document


def read_assessment(path: Path) -> Assessment:
    """Read an assessment and check its seal.

    Raises:
        ConfigurationError: it is not an assessment.
        IntegrityFailure: its content is not what was sealed, or its evidence is about something else.
    """
    assessment = read_document(path, Assessment, "an assessment of format holdfast-assessment/1")
    if assessment.seal != assessment.computed_seal():
        raise IntegrityFailure(
            "the assessment was changed after it was made",
            where=str(path),
            hint="Make it again with holdfast assess.",
        )
    for evidence in assessment.evidence:
        if evidence.digests and evidence.digests != assessment.digests:
            raise IntegrityFailure(
                f"the evidence of {evidence.probe} is about another model, data or system file than the assessment",
                where=str(path),
                hint="Make it again with holdfast assess.",
            )
    return assessment
