"""A made-up study for the tests that only read one; a conftest.py that imports these has them."""

from pathlib import Path

import pytest
from made_study import make_study

from modeling_slam.analysis import StudyResults


@pytest.fixture(scope="module")
def study_directory(tmp_path_factory) -> Path:
    return make_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def study(study_directory) -> StudyResults:
    return StudyResults.load(study_directory)
