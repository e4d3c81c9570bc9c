"""When each word of a transcript was said: attention of the LLM on its audio tokens, and pauses.

One more pass over the chunk, with its transcript given (teacher forcing). In the lower half of the LLM the
position of a word attends to the audio of that word (in the upper half, to that of the word that follows).
`HEADS` heads are chosen for each chunk by how much of their attention a path through the audio in the order
of the words can collect; others look at one place all the time, or at none. Their mean tells which word an
audio token belongs to, 100 ms each; the recording's power in frames of 20 ms tells where nothing is said.
Dynamic programming finds the best order of words and pauses. docs/pipeline.md has the measured error.

Sources: attention and dynamic programming, as for Whisper's words, https://github.com/openai/whisper
(timing.py); choosing heads without labels, https://huggingface.co/papers/2509.09987
"""

from typing import Any

import numpy as np
import torch

from .audio_lengths import SAMPLES_PER_ENCODER_FRAME, SAMPLING_RATE
from .long_audio import Chunk, Word

HEADS = 8
FRAME_SAMPLES = SAMPLES_PER_ENCODER_FRAME  # 20 ms
SPEECH_PERCENTILE = 95.0
SPEECH_DB = 35.0  # what lies further below the level of speech is a pause
NOISE_DB = 6.0  # and so is what rises less above the background, the 5th percentile,
LOUD_DB = 20.0  # unless that is nearly as loud as speech
PAUSE_WEIGHT = 0.3  # cost of a frame of pause inside a word, and of speech outside; attention is at most 1


def align_words(model: Any, processor: Any, chunk: Chunk, token_ids: list[int]) -> list[Word]:
    """The words of a chunk's transcript with start and end, in seconds of the recording.

    Args:
        model, processor: of one checkpoint; the model's attention is computed by its plain implementation
            for this pass, in memory of layers x heads x (prompt and transcript) squared.
        chunk: what was transcribed.
        token_ids: the transcript, without end-of-text.
    """
    words, rows = words_of_tokens(processor.tokenizer, token_ids)
    if not words:
        return []
    attention = attention_on_audio(model, processor, chunk.samples, token_ids)  # (heads, N, A)
    attention = np.stack([attention[:, places].mean(axis=1) for places in rows], axis=1)  # (heads, words, A)
    spans = place_words(combine_heads(attention), chunk.samples, processor.projector_stack)
    return [
        Word(word, round(chunk.start + start, 2), round(chunk.start + end, 2))
        for word, (start, end) in zip(words, spans, strict=True)
    ]


def words_of_tokens(tokenizer: Any, token_ids: list[int]) -> tuple[list[str], list[list[int]]]:
    """The words of a transcript, and for each the places of the tokens that spell it."""
    words = tokenizer.decode(token_ids).split()
    rows: list[list[int]] = [[] for _ in words]
    before = 0  # letters spelled so far
    ends = np.cumsum([len(word) for word in words])
    for place in range(len(token_ids)):
        after = len("".join(tokenizer.decode(token_ids[: place + 1]).split()))
        middle = (before + after) / 2  # a token over two words belongs to where most of it lies
        if after > before:
            rows[min(int(np.searchsorted(ends, middle)), len(words) - 1)].append(place)
        before = after
    for index, places in enumerate(rows):  # a word inside a token of its neighbour: that token's place
        if not places:
            rows[index] = rows[index - 1] if index else [0]
    return words, rows


@torch.no_grad()
def attention_on_audio(model: Any, processor: Any, samples: np.ndarray, token_ids: list[int]) -> np.ndarray:
    """(heads of the lower layers, N, A): what each transcript token's position pays to each audio token."""
    inputs = processor(samples).to(model.device, model.dtype)
    transcript = torch.tensor([token_ids], device=model.device)
    ids = torch.cat([inputs["input_ids"], transcript], dim=1)
    audio = (ids[0] == model.config.audio_token_id).nonzero()[:, 0]
    embeddings = model.prompt_embeddings(ids, inputs["input_features"], inputs["input_features_mask"])
    llm = model.language_model
    usual = llm.config._attn_implementation
    llm.set_attn_implementation("eager")  # the fused ones do not say what they attended to
    try:
        outputs = llm(inputs_embeds=embeddings, output_attentions=True, use_cache=False, logits_to_keep=1)
    finally:
        llm.set_attn_implementation(usual)
    lower = outputs.attentions[: max(1, len(outputs.attentions) // 2)]
    return torch.cat([layer[0, :, -len(token_ids) :, audio].float() for layer in lower]).cpu().numpy()


def combine_heads(attention: np.ndarray) -> np.ndarray:
    """(heads, words, A) -> (words, A): the mean of the heads that follow the speech, at most 1."""
    # What a head pays to a place whatever the word tells nothing.
    attention = attention - attention.mean(axis=1, keepdims=True)
    collected = attention[:, 0]
    for row in range(1, attention.shape[1]):
        collected = attention[:, row] + np.maximum.accumulate(collected, axis=-1)
    best = np.argsort(-collected.max(axis=-1), kind="stable")[:HEADS]
    mean = attention[best].mean(axis=0)
    return mean / max(np.abs(mean).max(), 1e-9)


def place_words(scores: np.ndarray, samples: np.ndarray, frames_per_token: int) -> list[tuple[float, float]]:
    """The best order of words and pauses: scores (words, A) -> start and end of each word in seconds.

    States alternate: pause, word 1, pause, word 2, ... A pause may be left out, a word lasts a frame or more.
    """
    words, tokens = scores.shape
    is_speech = speech_frames(samples, at_least=words)
    frames = len(is_speech)
    centres = (np.arange(frames) + 0.5) / frames_per_token - 0.5
    gains = np.empty((2 * words + 1, frames))
    for word in range(words):
        gain = np.interp(centres, np.arange(tokens), scores[word])
        gains[2 * word + 1] = np.where(is_speech, gain, -PAUSE_WEIGHT)
    gains[0::2] = np.where(is_speech, -PAUSE_WEIGHT, 0.0)

    is_word = np.arange(len(gains)) % 2 == 1
    total = np.full(len(gains), -np.inf)
    total[:2] = gains[:2, 0]
    steps = np.zeros((frames, len(gains)), dtype=int)  # how many states back each frame's best path came from
    for frame in range(1, frames):
        one, two = np.roll(total, 1), np.roll(total, 2)
        one[0] = two[:2] = -np.inf
        options = np.stack([total, one, np.where(is_word, two, -np.inf)])
        steps[frame] = options.argmax(axis=0)
        total = options.max(axis=0) + gains[:, frame]
    state = len(gains) - 1 if total[-1] >= total[-2] else len(gains) - 2
    path = np.empty(frames, dtype=int)
    for frame in range(frames - 1, -1, -1):
        path[frame] = state
        state -= steps[frame, state]
    edges = [np.flatnonzero(path == 2 * word + 1)[[0, -1]] for word in range(words)]
    seconds, longest = FRAME_SAMPLES / SAMPLING_RATE, len(samples) / SAMPLING_RATE
    return [(min(first * seconds, longest), min((last + 1) * seconds, longest)) for first, last in edges]


def speech_frames(samples: np.ndarray, at_least: int) -> np.ndarray:
    """(n,) -> (frames,) whether something is said in each 20 ms; silence fills up to `at_least` frames."""
    frames = max(-(-len(samples) // FRAME_SAMPLES), at_least)
    padded = np.zeros(frames * FRAME_SAMPLES)
    padded[: len(samples)] = samples
    power = (padded.reshape(frames, FRAME_SAMPLES) ** 2).mean(axis=1)
    speech, noise = np.percentile(power, [SPEECH_PERCENTILE, 100 - SPEECH_PERCENTILE])
    above_noise = min(noise * 10 ** (NOISE_DB / 10), speech * 10 ** (-LOUD_DB / 10))
    return power > max(speech * 10 ** (-SPEECH_DB / 10), above_noise)
