"""Full checkpoints written from lean ones: the same transcripts, with no base model left."""

import shutil

import pytest
import torch

from modeling_slam import SlamAsrForConditionalGeneration, SlamAsrProcessor
from modeling_slam.publishing.formats import write_full_checkpoint


@pytest.fixture
def lean(lora_model, tiny_processor, tmp_path):
    lora_model.save_pretrained(tmp_path / "lean")
    tiny_processor.save_pretrained(tmp_path / "lean")
    return tmp_path / "lean"


@pytest.mark.parametrize("merge_lora", [False, True])
def test_a_full_checkpoint_needs_no_base_model_and_says_the_same(
    lean, lora_model, base_models, two_clips, tmp_path, merge_lora
):
    inputs = SlamAsrProcessor.from_pretrained(lean)(two_clips)
    expected = lora_model.generate(**inputs)
    write_full_checkpoint(lean, tmp_path / "full", merge_lora)
    for directory in (lean, *base_models.values()):
        shutil.rmtree(directory)
    model = SlamAsrForConditionalGeneration.from_pretrained(tmp_path / "full")
    assert model.config.adds_lora != merge_lora
    inputs = SlamAsrProcessor.from_pretrained(tmp_path / "full")(two_clips)
    assert torch.equal(model.generate(**inputs), expected)
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits, lora_model(**inputs).logits, atol=1e-5, rtol=0)


def test_dtype_is_the_sources_or_the_one_asked_for(lean, tmp_path):
    for dtype, expected in (("auto", torch.float32), ("bfloat16", torch.bfloat16)):
        write_full_checkpoint(lean, tmp_path / dtype, dtype=dtype)
        model = SlamAsrForConditionalGeneration.from_pretrained(tmp_path / dtype)
        assert {parameter.dtype for parameter in model.parameters()} == {expected}


def test_a_directory_in_use_is_left_alone(lean):
    before = {path: path.stat().st_mtime_ns for path in lean.rglob("*")}
    with pytest.raises(ValueError, match="is not empty"):
        write_full_checkpoint(lean, lean)
    assert {path: path.stat().st_mtime_ns for path in lean.rglob("*")} == before
