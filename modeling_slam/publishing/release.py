"""Which files of a checkpoint are published, gathered in one directory before anything is sent.

A list of what may go, not of what may not: a run's directory also holds optimizer state, pickled arguments
and logs. To publish another file, add its pattern to `PUBLISHED`.
"""

import fnmatch
import json
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import safe_open

from modeling_slam import SlamAsrConfig
from modeling_slam.common.hub_ids import is_hub_id
from modeling_slam.model.lora import is_trained
from modeling_slam.publishing.formats import write_full_checkpoint

CARD = "README.md"
EVAL_RESULTS = ".eval_results"
# Paths in the repository. No adapter_config.json at its root: an id that has one loads as the bare LLM.
PUBLISHED = (
    "config.json", "generation_config.json", "*.py",
    "model.safetensors", "model-*.safetensors", "model.safetensors.index.json",
    "processor_config.json", "preprocessor_config.json", "chat_template.jinja",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "tokenizer.model",
    "adapter/adapter_config.json", "adapter/adapter_model.safetensors",
    "encoder_adapter/adapter_config.json", "encoder_adapter/adapter_model.safetensors",
    CARD, f"{EVAL_RESULTS}/*.yaml",
)  # fmt: skip
# What an earlier version had of these and this one lacks is removed in the same commit, and so is what would
# break loading.
REPLACED = (
    *PUBLISHED,
    "*.safetensors",
    "*.safetensors.index.json",
    "*.bin",
    "adapter_config.json",
    "adapter/*",
    "encoder_adapter/*",
)
TOKEN = re.compile(rb"hf_[A-Za-z0-9]{30,}")


class PublishedFile(NamedTuple):
    path: str  # in the repository
    size: int  # bytes


def matches(path: str, patterns: tuple[str, ...]) -> bool:
    """Whether a path fits a pattern; `*` stops at a slash."""
    return any(
        path.count("/") == pattern.count("/") and fnmatch.fnmatchcase(path, pattern) for pattern in patterns
    )


def stage(source: Path, target: Path, full: bool = False, merge_lora: bool = False) -> list[str]:
    """Put what is to be published of the checkpoint `source` into the empty directory `target`.

    Returns: the files of `source` that stay behind.

    Raises:
        ValueError: it is no checkpoint of this project, or strangers could not load it.
    """
    config = read_config(source)
    if full:
        write_full_checkpoint(source, target, merge_lora)
        forget_local_bases(target / "config.json")
        for path in files_below(target):
            if not matches(path, PUBLISHED):
                (target / path).unlink()
    else:
        check_lean(source, config)
        for path in files_below(source):
            if matches(path, PUBLISHED) and path != CARD:
                (target / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / path, target / path)
    if not list(target.glob("model*.safetensors")):
        raise ValueError(f"{source} has no safetensors weights; only those are published.")
    left = [path for path in files_below(source) if not matches(path, PUBLISHED)]
    return sorted({path if "/" not in path else path.split("/")[0] + "/" for path in left})


def read_config(source: Path) -> Any:
    """The `SlamAsrConfig` of a checkpoint directory, or an error that says what is there instead."""
    if not (source / "config.json").is_file():
        inner = sorted(path.parent.name for path in source.glob("*/config.json"))
        hint = f" It has the checkpoints {', '.join(inner)}: name one of them." if inner else ""
        raise ValueError(f"{source} is no checkpoint: it has no config.json.{hint}")
    fields, _ = SlamAsrConfig.get_config_dict(source)
    if fields.get("model_type") != SlamAsrConfig.model_type:
        raise ValueError(
            f"{source} is a {fields.get('model_type')!r} checkpoint; expected {SlamAsrConfig.model_type!r}."
        )
    return SlamAsrConfig.from_dict(fields)


def check_lean(source: Path, config: Any) -> None:
    """Refuse a checkpoint that is not lean, or whose base models others cannot fetch."""
    if holds_base_weights(source, config):
        raise ValueError(f"{source} holds the base models' weights as well. Publish it by `--format full`.")
    check_bases(config, str(source / "config.json"))


def check_bases(config: Any, where: str) -> None:
    """Base models must be such that everyone can fetch them, at revisions that stay."""
    bases = (
        ("audio", config.audio_model_id, config.audio_model_revision),
        ("text", config.text_model_id, config.text_model_revision),
    )
    for kind, model_id, revision in bases:
        if model_id is None or Path(model_id).is_absolute() or not is_hub_id(model_id):
            raise ValueError(
                f"{where} has `{kind}_model_id` {model_id!r}, which is no id of the Hub, so nobody else "
                "can load it. Publish all weights by `--format full`, or train from the Hub's ids."
            )
        if not re.fullmatch(r"[0-9a-f]{40}", revision or ""):
            raise ValueError(
                f"{where} has `{kind}_model_revision` {revision!r}, which is no commit: {model_id} could "
                "change under the trained weights. Set it to the commit that the model was trained on."
            )


def forget_local_bases(config_file: Path) -> None:
    """A full checkpoint needs no base models; where they lay on this machine is nobody's business."""
    fields = json.loads(config_file.read_text(encoding="utf-8"))
    for kind in ("audio", "text"):
        if not is_hub_id(fields.get(f"{kind}_model_id") or ""):
            fields[f"{kind}_model_id"] = fields[f"{kind}_model_revision"] = None
    config_file.write_text(json.dumps(fields, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def holds_base_weights(source: Path, config: Any) -> bool:
    """Whether frozen weights of the encoder lie there."""
    files = sorted(source.glob("model*.safetensors"))
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            of_encoder = [name for name in tensors.keys() if name.startswith("encoder.")]  # noqa: SIM118
            if not all(is_trained(name, config) for name in of_encoder):
                return True
    return False


def files_below(directory: Path) -> list[str]:
    """All files, as paths below `directory`, sorted."""
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())


def list_release(directory: Path) -> list[PublishedFile]:
    return [PublishedFile(path, (directory / path).stat().st_size) for path in files_below(directory)]


def refuse_secrets(directory: Path, token: str | None) -> None:
    """Raise ValueError if a text file to be published holds an access token, `token` or another."""
    for file in list_release(directory):
        if file.path.endswith(".safetensors"):
            continue
        content = (directory / file.path).read_bytes()
        if TOKEN.search(content) or (token and token.encode() in content):
            raise ValueError(
                f"{file.path} holds an access token; nothing was sent. Remove it there, and revoke the "
                "token if others may have seen it."
            )


def describe_release(files: list[PublishedFile], left_out: list[str]) -> str:
    """The list for people."""
    lines = [f"{file.size:>15,} bytes  {file.path}" for file in files]
    lines.append(f"{sum(file.size for file in files):>15,} bytes  in {len(files)} files")
    if left_out:
        lines.append(f"Not published: {', '.join(left_out)}")
    return "\n".join(lines)
