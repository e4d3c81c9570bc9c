"""Checkpoints written by the first release's code load, and say what they said then.

`saved_by_0_1/` holds four tiny ones, their base models, and `expected.safetensors`: logits, loss and beam-2
tokens of the fixture `two_clips` as that code computed them. Nothing in it is ever renewed.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from modeling_slam import SlamAsrForConditionalGeneration, SlamAsrProcessor

SAVED = Path(__file__).parent / "saved_by_0_1"


@pytest.mark.parametrize("name", ["lean-lora", "full-lora", "lean-conv", "full-qformer"])
def test_a_checkpoint_of_the_first_release_loads_and_transcribes_as_it_did(name, tmp_path, two_clips):
    expected = load_file(SAVED / "expected.safetensors")
    checkpoint = tmp_path / name
    shutil.copytree(SAVED / name, checkpoint)
    config = json.loads((checkpoint / "config.json").read_text())
    for part in ("audio_model_id", "text_model_id"):  # they name directories of the machine they were made on
        config[part] = config[part].replace("SAVED", f"{SAVED}/")
    (checkpoint / "config.json").write_text(json.dumps(config))

    model = SlamAsrForConditionalGeneration.from_pretrained(checkpoint).eval()
    processor = SlamAsrProcessor.from_pretrained(checkpoint)
    batch = processor(two_clips, text=["a cat", "it is"])
    labels = batch.pop("labels")
    with torch.no_grad():
        logits = model(**batch).logits
        loss = model(**batch, labels=labels).loss
    tokens = model.generate(**processor(two_clips), num_beams=2, max_new_tokens=12)
    is_real = batch["attention_mask"].bool()  # padding has no meaning
    difference = (logits - expected[f"{name}.logits"])[is_real].abs().max()
    assert difference <= 1e-5
    torch.testing.assert_close(loss[None], expected[f"{name}.loss"], atol=1e-5, rtol=0)
    assert torch.equal(tokens, expected[f"{name}.tokens"])
