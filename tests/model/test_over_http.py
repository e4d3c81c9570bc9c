"""Loading and listening over real HTTP: what the network does wrong is survived or named, and leaves nothing.

Pushing has tests of its own in tests/publishing/test_hub.py.
"""

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
import torch
from fake_hub import FakeHub
from huggingface_hub import close_session, constants

from modeling_slam import SlamAsrForConditionalGeneration, SlamAsrPipeline
from modeling_slam.model import audio_io
from modeling_slam.model.audio_io import AudioError

WEIGHTS = "/org/llm/resolve/.*/model.safetensors"


@pytest.fixture
def hub(monkeypatch) -> Iterator[FakeHub]:
    """The client of this process talks to it, with little patience."""
    with FakeHub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 1)
        monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 1)
        monkeypatch.setattr(time, "sleep", lambda _seconds: None)  # huggingface_hub's own pauses
        monkeypatch.setattr(audio_io, "FETCH_TIMEOUT_SECONDS", 1)
        yield hub
        close_session()


@pytest.fixture
def lean(hub, lora_model, base_models, tmp_path) -> Path:
    """A lean checkpoint whose base models are on that Hub alone, at pinned revisions."""
    for part, name in (("audio", "org/whisper"), ("text", "org/llm")):
        directory = Path(base_models[f"{part}_model_id"])
        setattr(lora_model.config, f"{part}_model_id", name)
        setattr(lora_model.config, f"{part}_model_revision", hub.add_directory(name, directory))
        shutil.rmtree(directory)
    lora_model.save_pretrained(tmp_path / "lean")
    return tmp_path / "lean"


def load(lean: Path, tmp_path: Path) -> SlamAsrForConditionalGeneration:
    return SlamAsrForConditionalGeneration.from_pretrained(
        lean, cache_dir=str(tmp_path / "cache"), token=FakeHub.token
    )


@pytest.mark.parametrize("kind", ["drop", "slow", "500"])
def test_base_weights_that_come_in_pieces_are_whole(hub, lean, lora_model, tmp_path, kind):
    hub.fail("GET", WEIGHTS, kind)
    if kind == "500":  # an answer, and so no reason to ask again: the next load succeeds
        with pytest.raises(OSError, match="org/llm"):
            load(lean, tmp_path)
    loaded = load(lean, tmp_path)
    assert hub.count("GET", WEIGHTS) >= 2
    for name, parameter in lora_model.named_parameters():
        assert torch.equal(loaded.get_parameter(name), parameter), name


@pytest.mark.parametrize("kind", ["drop", "slow", "500", "401"])
def test_base_weights_that_do_not_come_are_named_and_leave_no_file(hub, lean, tmp_path, caplog, kind):
    hub.fail("GET", WEIGHTS, kind, times=100)
    with pytest.raises(OSError, match="org/llm") as error:
        load(lean, tmp_path)
    assert not list((tmp_path / "cache" / "models--org--llm").rglob("snapshots/*/model.safetensors"))
    assert hub.token not in caplog.text + repr(error.value) + repr(error.value.__cause__)
    hub.faults.clear()
    load(lean, tmp_path)


def test_a_base_model_without_safetensors_is_refused_unread(hub, lean, tmp_path):
    """Pickled weights are not even fetched."""
    files = hub.repositories["org/llm"].head.files
    files["pytorch_model.bin"] = files.pop("model.safetensors")
    with pytest.raises(
        OSError, match=r"org/llm .* has no model\.safetensors.*Only safetensors weights are read"
    ):
        load(lean, tmp_path)
    assert hub.count("GET", r"\.bin") == 0


@pytest.mark.parametrize("kind", ["drop", "slow", "500", "401"])
def test_a_recording_that_does_not_arrive_whole_is_named_and_never_half_transcribed(
    hub, tiny_model, tiny_processor, two_clips, tmp_path, kind
):
    (tmp_path / "clips").mkdir()
    soundfile.write(tmp_path / "clips" / "clip.flac", two_clips[0], 16_000)
    hub.add_directory("org/clips", tmp_path / "clips")
    tiny_model.generation_config.update(max_new_tokens=8, eos_token_id=1, pad_token_id=0)
    transcribe = SlamAsrPipeline(tiny_model, tiny_processor, device="cpu")
    address = f"{hub.url}/org/clips/resolve/main/clip.flac"
    hub.fail("GET", "clip.flac", kind)
    with pytest.raises(AudioError, match=re.escape(address)) as error:
        transcribe(address)
    assert error.value.reason == "unreachable"
    assert transcribe(address) == transcribe(str(tmp_path / "clips" / "clip.flac"))
