"""Models of the real sizes with random weights, a tokenizer without a vocabulary of anybody's, made speech.

Time and memory of a step do not depend on what the weights are, so nothing is fetched. A transcript has as
many tokens as speech has in real datasets, and a model's transcript ends where `TOKENS_PER_SECOND` ends it:
random weights do not end by themselves.
"""

import itertools
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from modeling_slam import SlamAsrConfig, SlamAsrForConditionalGeneration, SlamAsrProcessor
from modeling_slam.common.known_models import qwen_config, whisper_config
from modeling_slam.model.audio_lengths import SAMPLING_RATE
from modeling_slam.model.processing_slam import INSTRUCTION

EPOCH_HOURS = 54  # of Dutch, of which one epoch is told
TOKENS_PER_SECOND = 4  # of the LLM, in read Dutch: 2.3 words a second, and most words are two tokens
CLIP_SECONDS = (2.0, 10.0)  # uniform, 6 s on average
WORDS = 256  # in the tokenizer
LORA_RANK = 16
TINY_DEPTH = 8  # tiny encoders have one layer for so many of the real ones
# Model -> Whisper's size, encoder layers kept; the most wanted first.
MODELS = {
    "medium-22": ("medium", 22),
    "large-v2": ("large-v2", 32),
    "small": ("small", 12),
    "medium-24": ("medium", 24),
    "medium-12": ("medium", 12),
}
# The projector of the paper, whose operations benchmarks/flops.py counts, and which the plain side has too.
PROJECTOR: dict[str, Any] = {"projector_type": "stack_mlp", "projector_stack": 5, "projector_context": 1}


@dataclass(frozen=True)
class Size:
    """How large all is: the LLMs, and how much of everything is measured."""

    models: tuple[str, ...]  # of `MODELS`, in the order in which they are measured
    llm: str  # of these
    small_llm: str  # of the models that are checked, in float32 too, with Whisper small
    batch_sizes: tuple[int, ...]  # in training, until memory ends
    compared_batch: int  # of those, where a variant or a peer stands beside ours
    eval_batch_sizes: tuple[int, ...]
    eval_batches: int  # of each size
    made_clips: int  # larger rounds hear them again
    checked_clips: int
    seconds: float  # that a training is measured, after its first steps
    matmul: tuple[int, ...]  # sizes of the squares whose product gives the peak


SIZES = {
    "real": Size(
        models=tuple(MODELS), llm="3B", small_llm="0.5B",
        batch_sizes=(16, 32, 64, 128, 256, 512, 1024), compared_batch=64,
        eval_batch_sizes=(64, 128, 256, 512), eval_batches=4, made_clips=256, checked_clips=8, seconds=4.0,
        matmul=(4096, 8192, 16384),
    ),
    "tiny": Size(
        models=("medium-22", "small"), llm="tiny", small_llm="tiny",
        batch_sizes=(1, 2), compared_batch=2, eval_batch_sizes=(1, 2),
        eval_batches=1, made_clips=8, checked_clips=4, seconds=0.0, matmul=(128, 256),
    ),
}  # fmt: skip


def encoder_config(size: str, whisper: str) -> WhisperConfig:
    """Of a whole Whisper."""
    config = whisper_config(whisper)
    decoder = {"decoder_layers": config.encoder_layers, "decoder_ffn_dim": config.encoder_ffn_dim}
    decoder["decoder_attention_heads"] = config.encoder_attention_heads
    config.update(decoder if size == "real" else tiny_encoder(config.encoder_layers))
    return config


def tiny_encoder(layers: int) -> dict[str, Any]:
    widths = {"d_model": 16, "vocab_size": 64, "init_std": 0.2}
    for part in ("encoder", "decoder"):
        widths |= {f"{part}_attention_heads": 2, f"{part}_ffn_dim": 32}
    ids = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0)
    return {"encoder_layers": layers // TINY_DEPTH, "decoder_layers": 1, **widths, **ids}


def llm_config(llm: str) -> Qwen2Config:
    ends: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
    if llm != "tiny":
        config = qwen_config(llm)
        config.update(ends)
        return config
    return Qwen2Config(
        vocab_size=384, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True, initializer_range=0.3, **ends,
    )  # fmt: skip


def tokenizer() -> PreTrainedTokenizerFast:
    """`<pad>` is 0, `<end>` is 1; a token for each of `WORDS` made-up words and those of the instruction."""
    syllables = ["".join(pair) for pair in itertools.product("bdfgklmnprstvwxz", "aeiou")]
    words = ["".join(pair) for pair in itertools.product(syllables, repeat=2)][:WORDS]
    pieces = ["<pad>", "<end>", "<unk>", *INSTRUCTION.split(), *words]
    fast = Tokenizer(models.WordLevel({piece: n for n, piece in enumerate(pieces)}, unk_token="<unk>"))
    fast.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=fast, pad_token="<pad>", eos_token="<end>", unk_token="<unk>"
    )


def processor(config: SlamAsrConfig) -> SlamAsrProcessor:
    extractor = WhisperFeatureExtractor(feature_size=config.audio_config.num_mel_bins)
    return SlamAsrProcessor(extractor, tokenizer(), projector_stack=config.projector_stack)


def model_config(size: str, name: str, llm: str, **fields: Any) -> SlamAsrConfig:
    """Of a model of `MODELS` with LoRA on this LLM."""
    whisper, layers = MODELS[name]
    settings: dict[str, Any] = {
        "audio_config": encoder_config(size, whisper),
        "text_config": llm_config(llm),
        "num_encoder_layers": layers if size == "real" else layers // TINY_DEPTH,
        "lora_rank": LORA_RANK,
        "trained_in_float32": True,
        "audio_token_id": audio_token_id(),
    }
    return SlamAsrConfig(**settings, **PROJECTOR, **fields)


def audio_token_id() -> int:
    return SlamAsrProcessor(WhisperFeatureExtractor(), tokenizer()).audio_token_id


def random_model(
    config: SlamAsrConfig, device: torch.device, dtype: torch.dtype, **options: Any
) -> SlamAsrForConditionalGeneration:
    """In evaluation mode; what is trained is float32, as `train.py` has it.

    LoRA's second matrices are random too, so that LoRA acts. `options` go to `from_config`.
    """
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModel.from_config(config, dtype=dtype, **options)
    for name, parameter in model.named_parameters():
        if ".lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
        if name.startswith("projector."):
            parameter.data = parameter.data.float()
    model.freeze()
    ends = {"eos_token_id": 1, "pad_token_id": 0}
    model.generation_config = GenerationConfig(num_beams=2, max_new_tokens=200, **ends)
    return model.eval()


def cast(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """All weights, as `from_pretrained(dtype=...)` does; buffers, such as frequencies of positions, stay."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def write_base_models(
    directory: Path, size: str, whisper: str, llm: str, dtype: torch.dtype
) -> dict[str, str]:
    """A whole Whisper and an LLM as directories; the fields of a config that name them."""
    places = {"audio_model_id": directory / f"whisper-{whisper}", "text_model_id": directory / f"llm-{llm}"}
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        encoder_settings = encoder_config(size, whisper)
        WhisperForConditionalGeneration(encoder_settings).save_pretrained(places["audio_model_id"])
        AutoModelForCausalLM.from_config(llm_config(llm)).save_pretrained(places["text_model_id"])
    finally:
        torch.set_default_dtype(torch.float32)
    WhisperFeatureExtractor(feature_size=encoder_settings.num_mel_bins).save_pretrained(
        places["audio_model_id"]
    )
    tokenizer().save_pretrained(places["text_model_id"])
    return {name: str(place) for name, place in places.items()}


def transcript_tokens(tokens: torch.Tensor) -> list[list[int]]:
    """(B, N) generated tokens -> those of each row before its end: searches pad differently."""
    return [list(itertools.takewhile(lambda token: token > 1, row)) for row in tokens.tolist()]


def made_clips(
    count: int, seed: int = 0, seconds: tuple[float, float] = CLIP_SECONDS
) -> list[dict[str, Any]]:
    """Clips with `id`, `audio` (16 kHz), `text` and `duration`: tones that come and go in noise, words."""
    draw, rng = random.Random(seed), np.random.default_rng(seed)
    words = [word for word in tokenizer().get_vocab() if len(word) == 4]
    clips = []
    for number in range(count):
        duration = draw.uniform(*seconds)
        time = np.arange(round(duration * SAMPLING_RATE), dtype=np.float32) / SAMPLING_RATE
        pitch, beat = draw.uniform(90, 250), draw.uniform(2, 5)
        tone = np.sin(2 * np.pi * pitch * time) * np.sin(np.pi * beat * time) ** 2
        samples = 0.3 * tone + 0.03 * rng.standard_normal(len(time), dtype=np.float32)
        text = " ".join(draw.choices(sorted(words), k=max(1, round(duration * TOKENS_PER_SECOND))))
        clips.append({"id": number, "audio": samples.astype(np.float32), "text": text, "duration": duration})
    return clips
