"""Published files: a checkpoint carries all the code that loads it, and nothing of this project but that."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import torch
from safetensors import safe_open
from transformers.dynamic_module_utils import get_imports

import modeling_slam
from modeling_slam import SlamAsrForConditionalGeneration

PACKAGE = Path(modeling_slam.__file__).parent / "model"
PUBLISHED = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py"}
MAX_FILES = 12
# Imported without a guard by what transformers itself depends on; the rest within `try:`.
OPTIONAL = {"peft", "soxr", "av"}
# Underscored names that transformers and torch give their subclasses to fill in or to set on themselves.
EXTENSION_POINTS = {
    "_forward",
    "_init_weights",
    "_keep_in_fp32_modules_strict",
    "_keys_to_ignore_on_save",
    "_load_feature_extractor",
    "_load_image_processor",
    "_load_processor",
    "_load_tokenizer",
    "_load_video_processor",
    "_no_split_modules",
    "_pipeline_calls_generate",
    "_sanitize_parameters",
    "_supports_attention_backend",
    "_supports_flash_attn",
    "_supports_sdpa",
}
# What transformers itself depends on. Others are imported within `try:`, which `get_imports` passes over.
ALLOWED = {"torch", "numpy", "transformers", "safetensors"}

# The other Python has other releases of transformers and peft: `make oldest` names it, for both directions.
PYTHONS = [sys.executable, *filter(None, [os.environ.get("SLAM_OTHER_PYTHON")])]

# Runs where neither this repository nor a file that points to it is on the path.
USE = """
import importlib.util, sys
sys.path.append(sys.argv[1])
assert importlib.util.find_spec("modeling_slam") is None, "the project must not be in sight"
clip, results, *checkpoints = sys.argv[2:]

import json
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModel, AutoModelForMultimodalLM, AutoModelForSpeechSeq2Seq
from transformers import AutoProcessor, pipeline

tensors, texts, results_of_pipelines, origins = {}, [], [], set()
for number, checkpoint in enumerate(checkpoints):
    processor = AutoProcessor.from_pretrained(checkpoint, trust_remote_code=True)
    config = AutoConfig.from_pretrained(checkpoint, trust_remote_code=True)
    inputs = processor(clip)
    models = [
        auto_class.from_pretrained(checkpoint, trust_remote_code=True)
        for auto_class in (AutoModel, AutoModelForSpeechSeq2Seq, AutoModelForMultimodalLM)
    ]
    models.append(AutoModel.from_pretrained(checkpoint, trust_remote_code=True, num_encoder_layers=1))
    with torch.no_grad():
        for model, name in zip(models, ("base", "speech", "multimodal", "pruned")):
            tensors[f"{name} {number}"] = model(**inputs).logits
    tensors[f"ids {number}"] = models[0].generate(**inputs)
    texts += processor.batch_decode(tensors[f"ids {number}"], skip_special_tokens=True)
    transcribe = pipeline("automatic-speech-recognition", checkpoint, trust_remote_code=True, device="cpu")
    results_of_pipelines.append(transcribe(clip))
    transcribe.save_pretrained(checkpoint + "-of-pipeline")
    origins |= {type(part).__module__.split(".")[0] for part in (*models, processor, config, transcribe)}
    models[1].save_pretrained(checkpoint + "-saved-again")
    processor.save_pretrained(checkpoint + "-saved-again")
metadata = {"texts": "|".join(texts), "origins": ",".join(origins)}
metadata["pipelines"] = json.dumps(results_of_pipelines)
save_file(tensors, results, metadata=metadata)
"""


@pytest.fixture
def clip(tmp_path, two_clips) -> str:
    soundfile.write(tmp_path / "clip.wav", two_clips[0], 16_000)
    return str(tmp_path / "clip.wav")


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_files_import_only_siblings_and_what_transformers_needs(name):
    packages = set(get_imports(PACKAGE / name)) - set(sys.stdlib_module_names)
    assert packages <= ALLOWED
    for node in ast.walk(ast.parse((PACKAGE / name).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:  # `from . import x` would not be copied
            assert node.level == 1
            assert f"{node.module}.py" in PUBLISHED


def is_underscored(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_files_use_public_names_only(name):
    """What is pushed can never be mended: it rests on nothing that libraries change unannounced."""
    tree = ast.parse((PACKAGE / name).read_text(encoding="utf-8"))
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own |= {
        target.attr
        for node in ast.walk(tree)
        for target in getattr(node, "targets", [])
        if isinstance(target, ast.Attribute)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                assert not any(map(is_underscored, alias.name.split("."))), f"line {node.lineno}"
        if isinstance(node, ast.Attribute) and is_underscored(node.attr):
            on_itself = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            on_itself |= isinstance(node.value, ast.Call) and ast.unparse(node.value) == "super()"
            assert on_itself, f"line {node.lineno}: {ast.unparse(node)}"
            assert node.attr in own | EXTENSION_POINTS, f"line {node.lineno}: {ast.unparse(node)}"
        if isinstance(node, ast.keyword) and node.arg:
            assert not is_underscored(node.arg), f"line {node.value.lineno}: {node.arg}="
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr", "hasattr"):
            attribute = node.args[1]
            assert not (isinstance(attribute, ast.Constant) and is_underscored(str(attribute.value)))


def test_the_directory_is_the_published_set_and_small():
    assert {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"} == PUBLISHED | {
        "__init__.py"
    }
    assert len(PUBLISHED) <= MAX_FILES


def test_the_configuration_imports_no_torch():
    tree = ast.parse((PACKAGE / "configuration_slam.py").read_text(encoding="utf-8"))
    siblings = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    for name in ("configuration_slam", *siblings):
        assert "torch" not in get_imports(PACKAGE / f"{name}.py")


def test_a_checkpoint_holds_exactly_the_published_files(lora_model, tiny_processor, tmp_path):
    lora_model.save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    assert {path.name for path in (tmp_path / "model").glob("*.py")} == PUBLISHED
    for name in PUBLISHED:
        assert (tmp_path / "model" / name).read_bytes() == (PACKAGE / name).read_bytes()


def packages_of(python: str) -> str:
    """Where `python` has what was installed for it."""
    program = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def written_config(checkpoint: Path) -> dict:
    """config.json without the release that wrote it."""
    config = json.loads((checkpoint / "config.json").read_text())
    config.pop("transformers_version")
    return config


@pytest.mark.parametrize("python", PYTHONS, ids=["here", "other"][: len(PYTHONS)])
def test_auto_classes_load_both_formats_without_this_project(
    lora_model, tiny_processor, tmp_path, clip, python
):
    """The README's four lines in a fresh interpreter: same logits, same transcript, and it saves again.

    LLM and encoder have LoRA.
    """
    lora_model.add_lora(2, 8, 0.0, ["q_proj", "v_proj"], part="encoder")
    for name, parameter in lora_model.encoder.named_parameters():
        if ".lora_B" in name:
            torch.nn.init.normal_(parameter)
    checkpoints = [tmp_path / "lean", tmp_path / "full"]
    for checkpoint in checkpoints:
        lora_model.config.self_contained = checkpoint.name == "full"
        lora_model.save_pretrained(checkpoint)
        tiny_processor.save_pretrained(checkpoint)
    results = tmp_path / "results.safetensors"
    # -I leaves out the working directory, -S the .pth file of the editable install.
    command = [python, "-I", "-S", "-c", USE, packages_of(python)]
    environment = os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*command, clip, str(results), *map(str, checkpoints)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr

    inputs = tiny_processor(clip)
    ids = lora_model.generate(**inputs)
    text = tiny_processor.batch_decode(ids, skip_special_tokens=True)[0]
    with torch.no_grad():
        expected = lora_model(**inputs).logits
        del lora_model.encoder.layers[1]
        pruned = lora_model(**inputs).logits
    with safe_open(results, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        metadata = file.metadata()
    assert metadata["origins"] == "transformers_modules"
    assert metadata["texts"] == f"{text}|{text}"
    pipelines = json.loads(metadata["pipelines"])
    for number, checkpoint in enumerate(checkpoints):
        assert pipelines[number] == {"text": text.strip()}
        for name in ("base", "speech", "multimodal"):
            torch.testing.assert_close(tensors[f"{name} {number}"], expected, atol=1e-6, rtol=0)
        torch.testing.assert_close(tensors[f"pruned {number}"], pruned, atol=1e-6, rtol=0)
        assert torch.equal(tensors[f"ids {number}"], ids)

        again, of_pipeline = Path(f"{checkpoint}-saved-again"), Path(f"{checkpoint}-of-pipeline")
        for directory in (again, of_pipeline):
            assert {path.name for path in directory.glob("*.py")} == PUBLISHED
            assert (directory / "processor_config.json").exists()
        directories = (checkpoint, again, of_pipeline)
        configs = [written_config(path) for path in directories]
        assert configs[0] == configs[1]
        for key in ("auto_map", "custom_pipelines"):
            assert configs[0][key] == configs[2][key]
        loaded = SlamAsrForConditionalGeneration.from_pretrained(again).eval()
        with torch.no_grad():
            torch.testing.assert_close(loaded(**inputs).logits, expected, atol=1e-6, rtol=0)
