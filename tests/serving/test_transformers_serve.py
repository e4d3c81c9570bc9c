"""`transformers serve`, with the one name that our entry gives it, hears our models."""

import sys
import time
from collections.abc import Iterator

import httpx2
import openai
import pytest
from served import wav
from transformers.cli.serve import Serve
from transformers.cli.serving.model_manager import ModelManager
from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES as NAMES

from modeling_slam import SlamAsrForConditionalGeneration, SlamAsrProcessor
from modeling_slam.serving.transformers_serve import main, register


@pytest.fixture
def without_name(monkeypatch) -> Iterator[None]:
    """Transformers as it is; what the test gives it, it loses afterwards."""
    monkeypatch.delitem(NAMES, "slam_asr", raising=False)
    yield
    NAMES.pop("slam_asr", None)


def test_without_the_entry_transformers_looks_for_our_class_among_its_own(checkpoint_with_head, without_name):
    """The reason for the entry: when this fails, it can go."""
    for trust in (False, True):
        with pytest.raises(AttributeError, match="has no attribute SlamAsrForConditionalGeneration"):
            ModelManager(device="cpu", trust_remote_code=trust).load_model_and_processor(
                str(checkpoint_with_head)
            )


def test_with_the_entry_openais_client_gets_what_generate_gives(
    checkpoint_with_head, two_clips, without_name
):
    register()
    name = str(checkpoint_with_head)
    program = Serve(force_model=name, device="cpu", host="127.0.0.1", port=0, non_blocking=True)
    try:
        until = time.monotonic() + 30
        while not program.server.started:
            assert time.monotonic() < until
            time.sleep(0.01)
        port = program.server.servers[0].sockets[0].getsockname()[1]
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
        model = SlamAsrForConditionalGeneration.from_pretrained(name)
        processor = SlamAsrProcessor.from_pretrained(name)
        for clip in two_clips:
            (expected,) = processor.batch_decode(model.generate(**processor(clip)), skip_special_tokens=True)
            sound = ("clip.wav", wav(clip))
            assert client.audio.transcriptions.create(model=name, file=sound).text == expected
        streamed = httpx2.post(
            f"http://127.0.0.1:{port}/v1/audio/transcriptions",
            data={"model": name, "stream": "true"},
            files={"file": sound},
            timeout=30,
        )
        parts = [line.removeprefix("data: ") for line in streamed.text.splitlines() if line]
        assert "".join(parts) == expected
    finally:
        program.kill_server()


def test_the_entry_is_the_same_program(monkeypatch, capsys, without_name):
    monkeypatch.setattr(sys, "argv", ["transformers_serve", "--help"])
    with pytest.raises(SystemExit, match="0"):
        main()
    assert "transformers serve" in (shown := capsys.readouterr().out)
    assert "--trust-remote-code" in shown
