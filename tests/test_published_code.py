"""Published files: a checkpoint carries all the code that loads it, and nothing of this project but that."""

import ast
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import soundfile
import torch
from safetensors import safe_open
from tiny_configs import tiny_audio_config, tiny_text_config
from transformers import Qwen2ForCausalLM, WhisperForConditionalGeneration
from transformers.dynamic_module_utils import get_imports

import modeling_slam
from modeling_slam import SlamAsrConfig, SlamAsrForConditionalGeneration

PACKAGE = Path(modeling_slam.__file__).parent
PUBLISHED = {
    "audio_io.py",
    "audio_lengths.py",
    "base_weights.py",
    "configuration_slam.py",
    "long_audio.py",
    "modeling_slam.py",
    "pipeline_slam.py",
    "processing_slam.py",
    "projectors.py",
    "whisper_encoder.py",
    "word_timestamps.py",
}
# What transformers itself depends on. Others are imported within `try:`, which `get_imports` passes over.
ALLOWED = {"torch", "numpy", "transformers", "safetensors"}

# Runs where neither this repository nor a file that points to it is on the path.
USE = """
import importlib.util, sys
sys.path.append(sys.argv[1])
assert importlib.util.find_spec("modeling_slam") is None, "the project must not be in sight"
checkpoint, clip, results = sys.argv[2:]

from transformers import AutoConfig, AutoModel, AutoModelForSpeechSeq2Seq, AutoProcessor

model = AutoModel.from_pretrained(checkpoint, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(checkpoint, trust_remote_code=True)
ids = model.generate(**processor(clip))
texts = processor.batch_decode(ids, skip_special_tokens=True)

import json
import torch
from safetensors.torch import save_file
from transformers import pipeline

transcribe = pipeline("automatic-speech-recognition", model=checkpoint, trust_remote_code=True, device="cpu")
result = transcribe(clip, return_timestamps="word")
transcribe.save_pretrained(checkpoint + "-of-pipeline")

config = AutoConfig.from_pretrained(checkpoint, trust_remote_code=True)
same = AutoModelForSpeechSeq2Seq.from_pretrained(checkpoint, trust_remote_code=True)
with torch.no_grad():
    tensors = {"logits": model(**processor(clip)).logits, "same": same(**processor(clip)).logits, "ids": ids}
origin = {type(part).__module__.split(".")[0] for part in (model, same, processor, config, transcribe)}
metadata = {"text": texts[0], "origin": ",".join(origin), "result": json.dumps(result)}
save_file(tensors, results, metadata=metadata)
same.save_pretrained(checkpoint + "-saved-again")
processor.save_pretrained(checkpoint + "-saved-again")
"""


@pytest.fixture
def clip(tmp_path, two_clips) -> str:
    soundfile.write(tmp_path / "clip.wav", two_clips[0], 16_000)
    return str(tmp_path / "clip.wav")


@pytest.fixture
def lean_model(tmp_path, tiny_processor) -> SlamAsrForConditionalGeneration:
    """With LoRA and a pruned encoder; its base weights lie in directories of their own."""
    torch.manual_seed(0)
    WhisperForConditionalGeneration(tiny_audio_config()).save_pretrained(tmp_path / "whisper")
    Qwen2ForCausalLM(tiny_text_config()).save_pretrained(tmp_path / "llm")
    config = SlamAsrConfig(
        audio_config=tiny_audio_config(),
        text_config=tiny_text_config(),
        num_encoder_layers=2,
        projector_hidden_size=64,
        lora_rank=4,
        audio_model_id=str(tmp_path / "whisper"),
        text_model_id=str(tmp_path / "llm"),
        audio_token_id=tiny_processor.audio_token_id,
    )
    model = SlamAsrForConditionalGeneration.from_base_models(config).eval()
    for name, parameter in model.named_parameters():
        if ".lora_B" in name:
            torch.nn.init.normal_(parameter)
    model.generation_config.update(num_beams=2, max_new_tokens=12, eos_token_id=1, pad_token_id=0)
    return model


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_files_import_only_siblings_and_what_transformers_needs(name):
    packages = set(get_imports(PACKAGE / name)) - set(sys.stdlib_module_names)
    assert packages <= ALLOWED
    for node in ast.walk(ast.parse((PACKAGE / name).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:  # `from . import x` would not be copied
            assert node.level == 1
            assert f"{node.module}.py" in PUBLISHED


def test_a_checkpoint_holds_exactly_the_published_files(lean_model, tiny_processor, tmp_path):
    lean_model.save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    assert {path.name for path in (tmp_path / "model").glob("*.py")} == PUBLISHED
    for name in PUBLISHED:
        assert (tmp_path / "model" / name).read_bytes() == (PACKAGE / name).read_bytes()


def test_auto_classes_load_a_checkpoint_without_this_project(lean_model, tiny_processor, tmp_path, clip):
    """The README's four lines in a fresh interpreter: same logits, same transcript, and it saves again."""
    checkpoint = tmp_path / "model"
    lean_model.save_pretrained(checkpoint)
    tiny_processor.save_pretrained(checkpoint)
    results = tmp_path / "results.safetensors"
    # -I leaves out the working directory, -S the .pth file of the editable install.
    command = [sys.executable, "-I", "-S", "-c", USE, sysconfig.get_paths()["purelib"]]
    environment = os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*command, str(checkpoint), clip, str(results)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr

    with torch.no_grad():
        expected = lean_model(**tiny_processor(clip)).logits
    with safe_open(results, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in ("logits", "same", "ids")}
        metadata = file.metadata()
    assert metadata["origin"] == "transformers_modules"
    torch.testing.assert_close(tensors["logits"], expected, atol=1e-6, rtol=0)
    assert torch.equal(tensors["same"], tensors["logits"])
    ids = lean_model.generate(**tiny_processor(clip))
    assert torch.equal(tensors["ids"], ids)
    assert metadata["text"] == tiny_processor.batch_decode(ids, skip_special_tokens=True)[0]
    result = json.loads(metadata["result"])
    assert result["text"] == metadata["text"].strip()
    assert [chunk["text"] for chunk in result["chunks"]] == result["text"].split()

    again, of_pipeline = Path(f"{checkpoint}-saved-again"), Path(f"{checkpoint}-of-pipeline")
    configs = []
    for directory in (checkpoint, again, of_pipeline):
        assert {path.name for path in directory.glob("*.py")} == PUBLISHED
        assert (directory / "processor_config.json").exists()
        configs.append(json.loads((directory / "config.json").read_text()))
    for key in ("auto_map", "custom_pipelines"):
        assert configs[0][key] == configs[1][key] == configs[2][key]
    loaded = SlamAsrForConditionalGeneration.from_pretrained(again)
    with torch.no_grad():
        torch.testing.assert_close(loaded(**tiny_processor(clip)).logits, expected, atol=1e-6, rtol=0)
