"""Names of published models: `slam-{size}-{N}L{-lora}-{lang}`, such as slam-medium-22L-lora-nl.

The name repeats what the config says, so it can be proposed, and a name that says otherwise is refused. Other
names are allowed. To name another encoder size, add it to `WHISPER_SIZES` in `common/known_models.py`.
"""

import re
from typing import Any, NamedTuple

from modeling_slam.common.hub_ids import check_repo_id
from modeling_slam.common.known_models import whisper_size

SCHEME = re.compile(r"slam-(?P<size>.+?)-(?P<layers>\d+)L(?P<lora>-lora)?(?:-(?P<language>[a-z]{2,3}))?")


class NameParts(NamedTuple):
    size: str
    layers: int
    lora: bool
    language: str | None

    def __str__(self) -> str:
        lora = "-lora" if self.lora else ""
        language = f"-{self.language}" if self.language else ""
        return f"slam-{self.size}-{self.layers}L{lora}{language}"


def name_parts(config: Any, language: str | None) -> NameParts:
    """What the name of a checkpoint with this `SlamAsrConfig` says; `language` is an ISO code."""
    layers = config.num_encoder_layers
    spoken = language.lower().split("-")[0] if language else None
    return NameParts(encoder_size(config), layers, config.adds_lora, spoken)


def encoder_size(config: Any) -> str:
    """`medium` for Whisper medium; an encoder of no known size by its width, `d32`."""
    audio = config.audio_config
    return whisper_size(audio, config.audio_model_id) or f"d{audio.hidden_size}"


def check_name(repo_id: str, config: Any, language: str | None) -> str | None:
    """A warning if `repo_id` does not follow the scheme, `None` if it does.

    Raises:
        ValueError: the id is not `owner/name`, or its name says something else than the checkpoint.
    """
    check_repo_id(repo_id)
    expected = name_parts(config, language)
    owner, name = repo_id.split("/")
    found = SCHEME.fullmatch(name)
    if found is None:
        scheme = "slam-{size}-{N}L{-lora}-{lang}"
        return f"{name} does not follow {scheme}; {expected} would be its name there."
    said = NameParts(found["size"], int(found["layers"]), bool(found["lora"]), found["language"])
    contradictions = []
    if said.size != expected.size:
        contradictions.append(f"size {said.size}, the encoder is {expected.size}")
    if said.layers != expected.layers:
        contradictions.append(f"{said.layers} layers, the encoder keeps {expected.layers}")
    if said.lora != expected.lora:
        contradictions.append("LoRA, it has none" if said.lora else "no LoRA, it has LoRA")
    if said.language != expected.language and expected.language is not None:
        contradictions.append(f"language {said.language}, it was trained on {expected.language}")
    if contradictions:
        raise ValueError(
            f"`repo_id` {repo_id} says {'; '.join(contradictions)}. Name it {owner}/{expected}, or give it a "
            "name outside the slam-… scheme."
        )
    return None
