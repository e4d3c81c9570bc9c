"""A tiny model with a CTC head, servers of it, and recordings."""

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from served import RATE, HeldPipeline, Running, running, wav


@pytest.fixture
def pipe_with_head(sure_model, tiny_processor) -> HeldPipeline:
    tiny_processor.chunk_seconds = 4
    return HeldPipeline(sure_model, tiny_processor, device="cpu")


@pytest.fixture
def pipe_without_head(tiny_model, tiny_processor) -> HeldPipeline:
    tiny_model.generation_config.update(max_new_tokens=8, eos_token_id=1, pad_token_id=0)
    tiny_processor.chunk_seconds = 4
    return HeldPipeline(tiny_model, tiny_processor, device="cpu")


@pytest.fixture
def serve(pipe_with_head) -> Iterator[Callable[..., Running]]:
    """Starts a server; all end with the test."""
    with contextlib.ExitStack() as servers:

        def start(
            pipe: HeldPipeline | None = None,
            tells_times: bool = True,
            api_key: str | None = None,
            **settings,
        ) -> Running:
            return servers.enter_context(running(pipe or pipe_with_head, tells_times, api_key, **settings))

        yield start


@pytest.fixture
def sounds(two_clips) -> dict[str, bytes]:
    """Files: two clips, and a recording of 33 s with pauses."""
    one, other = two_clips
    pause = np.zeros(RATE // 2, np.float32)
    return {
        "one": wav(one),
        "other": wav(other),
        "long": wav(np.concatenate([one, pause, other, pause] * 7)),
    }
