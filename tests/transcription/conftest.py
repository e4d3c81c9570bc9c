"""A tiny checkpoint, and a folder of recordings as people have them."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from modeling_slam import SlamAsrConfig, SlamAsrForConditionalGeneration

RATE = 16_000


@pytest.fixture
def checkpoint(tiny_model, tiny_processor, tmp_path) -> Path:
    tiny_model.generation_config.update(max_new_tokens=8, eos_token_id=1, pad_token_id=0)
    tiny_model.save_pretrained(tmp_path / "checkpoint")
    tiny_processor.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.fixture
def checkpoint_with_head(tiny_config, tiny_tokenizer, tiny_processor, tmp_path) -> Path:
    """Its CTC head is sure of the letters that it hears, whatever they are."""
    torch.manual_seed(3)
    letters = tiny_tokenizer.convert_tokens_to_ids([*"abcdefghijklmnopqrstuvwxyz "])
    config = SlamAsrConfig.from_dict(tiny_config.to_dict() | {"ctc_vocab_size": len(letters)})
    model = SlamAsrForConditionalGeneration(config)
    model.ctc_head.begin(sorted(letters), 0.1, 1.0)
    model.ctc_head.log_temperature.data += 4.0
    model.generation_config.update(max_new_tokens=8, eos_token_id=1, pad_token_id=0)
    model.save_pretrained(tmp_path / "with-head")
    tiny_processor.save_pretrained(tmp_path / "with-head")
    return tmp_path / "with-head"


@pytest.fixture
def folder(two_clips, tmp_path) -> Path:
    """A clip and a stereo one, 42 s with pauses, silence, half a file, no audio, and a film in a folder."""
    folder = tmp_path / "in"
    (folder / "films").mkdir(parents=True)
    one, other = two_clips
    soundfile.write(folder / "one.wav", one, RATE)
    soundfile.write(folder / "stereo.flac", np.stack([other, other], axis=1), RATE)
    pause = np.zeros(RATE // 2, np.float32)
    soundfile.write(folder / "long.wav", np.concatenate([one, pause, other, pause] * 9), RATE)
    soundfile.write(folder / "silent.wav", np.zeros(3 * RATE, np.float32), RATE)
    whole = (folder / "long.wav").read_bytes()
    (folder / "cut.wav").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.mp3").write_text("no audio at all")
    (folder / "readme.md").write_text("no recording")
    soundfile.write(folder / "films" / "one.ogg", other, RATE)
    return folder
