from __future__ import annotations

import pytest
from report_builders import make_assessment, make_hostile, make_nothing_measured

from holdfast.assessment.document import Assessment


@pytest.fixture(scope="session")
def assessment() -> Assessment:
    return make_assessment()


@pytest.fixture(scope="session")
def nothing_measured() -> Assessment:
    return make_nothing_measured()


@pytest.fixture(scope="session")
def hostile() -> Assessment:
    return make_hostile()
