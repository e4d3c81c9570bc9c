"""Tiny checkpoints as `slam-asr app` opens them: with a CTC head and depths to compare, and without."""

import json
from pathlib import Path

import pytest
import soundfile
import torch

from modeling_slam import SlamAsrConfig, SlamAsrForConditionalGeneration

RATE = 16_000


@pytest.fixture
def plain_checkpoint(tiny_model, tiny_processor, tmp_path) -> Path:
    tiny_model.generation_config.update(max_new_tokens=8, eos_token_id=1, pad_token_id=0)
    tiny_model.save_pretrained(tmp_path / "plain")
    tiny_processor.save_pretrained(tmp_path / "plain")
    return tmp_path / "plain"


@pytest.fixture
def any_depth_checkpoint(tiny_config, tiny_tokenizer, tiny_processor, tmp_path) -> Path:
    """Of a run with `--train_depths 1 2 3`; its CTC head is sure of the letters that it hears."""
    torch.manual_seed(3)
    letters = tiny_tokenizer.convert_tokens_to_ids([*"abcdefghijklmnopqrstuvwxyz "])
    config = SlamAsrConfig.from_dict(tiny_config.to_dict() | {"ctc_vocab_size": len(letters)})
    model = SlamAsrForConditionalGeneration(config)
    model.ctc_head.begin(sorted(letters), 0.1, 1.0)
    model.ctc_head.log_temperature.data += 4.0
    model.generation_config.update(max_new_tokens=12, eos_token_id=1, pad_token_id=0)
    model.save_pretrained(tmp_path / "any-depth")
    tiny_processor.save_pretrained(tmp_path / "any-depth")
    run = {"data": {"language": "nl"}, "run": {"train_depths": [1, 2, 3]}}
    (tmp_path / "any-depth" / "run.json").write_text(json.dumps(run))
    return tmp_path / "any-depth"


@pytest.fixture
def recording(two_clips, tmp_path) -> Path:
    soundfile.write(tmp_path / "my talk.wav", two_clips[1], RATE)
    return tmp_path / "my talk.wav"
