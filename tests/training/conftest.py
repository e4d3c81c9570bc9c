"""One miniature world for all tests of training: half a second to build, read only."""

import pytest
from tiny_world import TinyWorld, build_tiny_world


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> TinyWorld:
    return build_tiny_world(tmp_path_factory.mktemp("world"))
