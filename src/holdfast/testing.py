"""Assertions for pytest: hold a model to a bound in the same place where its other tests live.

Example::

    from holdfast.testing import assert_gate, assert_no_leak, assert_robust

    def test_robust():
        assert_robust("holdfast.yaml", attack="labels", max_success=0.3)

    def test_private():
        assert_no_leak("holdfast.yaml", max_success=0.02)

    def test_release():
        assert_gate("assessment.json", "policy.yaml")

An assertion fails when its bound is exceeded and also when nothing could be measured, with the reason.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Literal

from holdfast.assessment.document import Assessment
from holdfast.assessment.files import read_assessment
from holdfast.assessment.gate import Policy, apply_gate, read_policy, upper_bound
from holdfast.assessment.run import prepare
from holdfast.core.errors import ConfigurationError
from holdfast.core.evidence import Evidence

Attack = Literal["labels", "scores", "white-box"]
ATTACKS: dict[str, str] = {"labels": "evasion-labels", "scores": "evasion-scores", "white-box": "evasion-white-box"}


def assert_gate(assessment: Assessment | Path | str, policy: Policy | Path | str) -> None:
    """Fail unless the assessment passes the policy.

    Args:
        assessment: a document, or the file it is in.
        policy: a policy, or the file it is in.

    Raises:
        AssertionError: the gate is breached or inconclusive; the message lists why.
        HoldfastError: a file is wrong.
    """
    document = assessment if isinstance(assessment, Assessment) else read_assessment(Path(assessment))
    result = apply_gate(document, policy if isinstance(policy, Policy) else read_policy(Path(policy)))
    if result.code:
        reasons = "\n".join(f"  {item.outcome}: {item.rule}: {item.message}" for item in result.findings)
        raise AssertionError(f"the gate is {result.verdict}\n{reasons}")


def assert_robust(
    system: Path | str,
    *,
    max_success: float,
    attack: Attack = "labels",
    budget: str = "quick",
    seed: int = 0,
    trust: Collection[str] = (),
) -> None:
    """Attack the model and fail unless the success rate is below a bound.

    Args:
        system: the system file.
        max_success: what the upper end of the 95 % interval of the success rate may reach, in [0, 1].
        attack: what the attacker sees.
        budget, seed, trust: as for `holdfast.assessment.run.prepare`.

    Raises:
        AssertionError: the bound is exceeded, or the attack gave no measurement.
        HoldfastError: the system file, the model or the data are not usable.
    """
    if attack not in ATTACKS:
        raise ConfigurationError(f"no attack {attack!r}", hint=f"One of {', '.join(ATTACKS)}.")
    _assert_below(_measure(system, ATTACKS[attack], budget, seed, trust), max_success)


def assert_no_leak(
    system: Path | str, *, max_success: float = 0.02, budget: str = "quick", seed: int = 0, trust: Collection[str] = ()
) -> None:
    """Run the membership attacks and fail unless fewer training rows than a bound can be recognised.

    Args:
        system: the system file; it must name the training rows.
        max_success: what the upper end of the 95 % interval of the share of training rows that are recognised beyond chance
            may reach. A holdout set of 1,000 rows or more resolves a false-positive rate of 1 %; a smaller one only 10 %, and
            the interval is then too wide for a strict bound.
        budget, seed, trust: as for `holdfast.assessment.run.prepare`.

    Raises:
        AssertionError: the bound is exceeded, or nothing could be measured.
        HoldfastError: the system file, the model or the data are not usable.
    """
    _assert_below(_measure(system, "membership", budget, seed, trust), max_success)


def _measure(system: Path | str, probe: str, budget: str, seed: int, trust: Collection[str]) -> Evidence:
    run = prepare(Path(system), budget=budget, seed=seed, only=[probe], trust=trust, workers=1)
    run.measure(workers=1)
    if probe not in run.evidence:
        raise AssertionError(f"{probe} measures no threat that applies to this system")
    return run.evidence[probe]


def _assert_below(evidence: Evidence, bound: float) -> None:
    if evidence.status != "measured":
        raise AssertionError(f"{evidence.probe} is {evidence.status.replace('_', ' ')}: {evidence.reason}")
    upper = upper_bound(evidence, evidence.chance)
    if upper > bound:
        won = sum(row.success for row in evidence.rows)
        counts = f"{won} of {len(evidence.rows)}"
        raise AssertionError(
            f"{evidence.probe}: success beyond chance may be up to {upper:.1%} (95 % upper bound, {counts}), above {bound:.1%}"
        )
