"""The baseline: a whole Whisper with its own decoder, on the same clips and by the same rules.

It decodes as Whisper wants it: 30 s windows, the language named, the task transcribe, no timestamps.
Checkpoints that lack Whisper's own generation settings get them from their tokenizer
(`generation_config_from_tokenizer`).

Source: Whisper, https://huggingface.co/papers/2212.04356
"""

import functools
import logging
from collections.abc import Callable, Sequence

import datasets
import numpy as np
import torch
from transformers import (
    BatchFeature,
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

from modeling_slam.evaluation.arguments import EvaluationArguments
from modeling_slam.evaluation.decoding import Transcript, read_transcripts
from modeling_slam.model.audio_lengths import MAX_CLIP_SECONDS, SAMPLING_RATE

logger = logging.getLogger(__name__)

# The English-only vocabulary is GPT-2's and one entry smaller; nothing else in the files tells the two apart.
MULTILINGUAL_VOCABULARY = 51_865
# Signs of annotations such as [music] or (laughs), which Whisper may not write where it transcribes speech.
ANNOTATION_SIGNS = frozenset('"#()*+/:;<=>@[\\]^_`{|}~「」『』♩♪♫♬♭♮♯')
PROMPT_TOKENS = 4  # start, language, task, no timestamps


class WhisperRecogniser:
    """A Whisper checkpoint and its decoder; without `language` it is told each clip's, if multilingual."""

    def __init__(self, arguments: EvaluationArguments, device: torch.device, language: str | None):
        # Whisper's `generate` warns, at each call, about arguments that it sets itself.
        logging.getLogger("transformers.generation").setLevel(logging.ERROR)
        self.tokenizer = WhisperTokenizer.from_pretrained(arguments.model)
        self.feature_extractor = WhisperFeatureExtractor.from_pretrained(arguments.model)
        dtype = arguments.torch_dtype(device)
        self.model = (
            WhisperForConditionalGeneration.from_pretrained(arguments.model, dtype=dtype).to(device).eval()
        )
        config = self.model.generation_config
        if getattr(config, "no_timestamps_token_id", None) is None:
            logger.warning(
                "%s has no generation settings of Whisper's; made from its tokenizer.", arguments.model
            )
            config = generation_config_from_tokenizer(self.tokenizer, self.model.config)
        if arguments.suppress_numerals:
            config.suppress_tokens = sorted(
                {*(config.suppress_tokens or []), *numeral_tokens(self.tokenizer)}
            )
        self.model.generation_config = config
        self.options = {"num_beams": arguments.num_beams, "max_new_tokens": arguments.max_new_tokens}
        # English-only checkpoints refuse to be told what they cannot choose.
        self.prompt = {"language": language, "task": "transcribe"} if language else {}
        self.by_clip = language is None and self.model.config.vocab_size >= MULTILINGUAL_VOCABULARY

    def prepare(self) -> Callable[..., BatchFeature]:
        return functools.partial(whisper_features, self.feature_extractor, by_clip=self.by_clip)

    def transcribe(self, inputs: BatchFeature) -> list[Transcript]:
        generated = self.model.generate(
            **inputs.to(self.model.device, self.model.dtype), **self.options, **self.prompt
        )
        return read_transcripts(generated, self.tokenizer, self.model.generation_config)

    def heard_seconds(self, clip_seconds: float) -> float:
        return MAX_CLIP_SECONDS

    def parameter_counts(self) -> dict[str, int]:
        encoder = sum(p.numel() for p in self.model.get_encoder().parameters())
        total = sum(p.numel() for p in self.model.parameters())
        return {"encoder": encoder, "decoder": total - encoder, "total": total}


def whisper_features(
    feature_extractor: WhisperFeatureExtractor,
    audio: list[np.ndarray],
    language: Sequence[str | None] = (),
    by_clip: bool = False,
) -> BatchFeature:
    """Features; `by_clip` with what `generate` needs to be told the language of each."""
    features = feature_extractor(audio, sampling_rate=SAMPLING_RATE, return_tensors="pt")
    if by_clip and language:
        features |= {"language": [str(code).split("-")[0] for code in language], "task": "transcribe"}
    return features


def check_baseline(arguments: EvaluationArguments, dataset: datasets.Dataset) -> str | None:
    """Refuse, before weights are loaded, what Whisper would cut or guess.

    Returns the language it is told: None for an English-only one, and for clips of several languages, each of
    which goes with its clip.
    """
    config = WhisperConfig.from_pretrained(arguments.model)
    if arguments.max_new_tokens + PROMPT_TOKENS > config.max_target_positions:
        raise ValueError(
            f"`--max_new_tokens {arguments.max_new_tokens}` is more than Whisper's decoder can write; "
            f"at most {config.max_target_positions - PROMPT_TOKENS}."
        )
    languages = set(dataset["language"])
    if config.vocab_size < MULTILINGUAL_VOCABULARY:
        if not languages <= {"en", None}:
            raise ValueError(
                f"{arguments.model} knows English only, the data is {sorted(map(str, languages))}."
            )
        return None
    if None in languages:
        raise ValueError(
            "Whisper must be told the language, and clips of the data have none; set `--language`."
        )
    return languages.pop().split("-")[0] if len(languages) == 1 else None


def generation_config_from_tokenizer(tokenizer: WhisperTokenizer, config: WhisperConfig) -> GenerationConfig:
    """Whisper's generation settings, as far as transcribing needs them, from its special tokens' names."""
    vocabulary = tokenizer.get_vocab()
    end, start = vocabulary["<|endoftext|>"], vocabulary["<|startoftranscript|>"]
    special = range(start, vocabulary["<|notimestamps|>"])  # the prompt's business, never the transcript's
    annotations = [
        token for token, text in word_pieces(tokenizer) if text and ANNOTATION_SIGNS.issuperset(text)
    ]
    settings = {}
    if config.vocab_size >= MULTILINGUAL_VOCABULARY:
        languages = range(start + 1, vocabulary["<|translate|>"])
        settings["lang_to_id"] = {tokenizer.convert_ids_to_tokens(token): token for token in languages}
        settings["task_to_id"] = {task: vocabulary[f"<|{task}|>"] for task in ("transcribe", "translate")}
    return GenerationConfig(
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=start,
        no_timestamps_token_id=vocabulary["<|notimestamps|>"],
        is_multilingual=config.vocab_size >= MULTILINGUAL_VOCABULARY,
        suppress_tokens=sorted([*annotations, *special]),
        begin_suppress_tokens=[vocabulary["Ġ"], end],  # no transcript begins with a blank or is empty
        **settings,
    )


def numeral_tokens(tokenizer: WhisperTokenizer) -> list[int]:
    return [token for token, text in word_pieces(tokenizer) if any(map(str.isdigit, text))]


def word_pieces(tokenizer: WhisperTokenizer) -> list[tuple[int, str]]:
    """Id and text, blanks around it removed, of each token that is no special one."""
    end = tokenizer.get_vocab()["<|endoftext|>"]
    return [(token, tokenizer.decode([token]).strip()) for token in range(end)]
