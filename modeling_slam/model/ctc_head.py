"""The CTC head: what the projector's output says by itself, read against the LLM's own input embeddings.

    logits = projector output . embeddings of the used tokens . temperature,  and a blank in front

It aligns the projector before the LLM is met, writes what the LLM reads (the expected embedding), finds the
positions where nothing is said, transcribes at the encoder's speed, has a say in which of the LLM's beams
is the transcript, and tells when each of its words was said and how sure that is. Only the ids of the used
tokens, the blank and the temperature are its own: the embeddings are the LLM's. `B` clips, `A` audio tokens,
`V` used tokens.

Source: CTC, https://dl.acm.org/doi/10.1145/1143844.1143891; expected embeddings,
https://huggingface.co/papers/2505.11352; joint score, https://doi.org/10.1109/JSTSP.2017.2763455; alignment
of a known text, https://arxiv.org/abs/2007.09127
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice, pairwise
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from .audio_lengths import HOP_SAMPLES, SAMPLING_RATE, Chunk, Word, gap_between, hop_power

BLANK = 0  # class of the blank; used token i is class i + 1
HOP_SECONDS = HOP_SAMPLES / SAMPLING_RATE
WORST_SCORE = -1e4  # of a text that the head cannot align: the LLM decides among such


class CtcHead(nn.Module):
    """Used tokens, blank and temperature; with `llm_input` "gated" the gate too."""

    token_ids: torch.Tensor

    def __init__(self, config: Any):
        super().__init__()
        self.register_buffer("token_ids", torch.zeros(config.ctc_vocab_size, dtype=torch.long))
        self.blank = nn.Parameter(torch.zeros(config.text_config.hidden_size))
        self.blank_bias = nn.Parameter(torch.zeros(()))
        self.log_temperature = nn.Parameter(torch.zeros(()))
        self.gate = nn.Parameter(torch.zeros(())) if config.llm_input == "gated" else None

    @torch.no_grad()
    def begin(self, token_ids: Iterable[int], embedding_norm: float, scale: float) -> None:
        """Set the used tokens, and the temperature at which logits of an untrained projector vary by 1.

        Args:
            token_ids: of the LLM, ascending.
            embedding_norm: mean length of the LLM's embeddings.
            scale: standard deviation of the projector's output.
        """
        self.token_ids.copy_(torch.tensor(list(token_ids)))
        self.log_temperature.fill_(-math.log(embedding_norm * scale))

    def forward(self, projected: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """(B, A, D_llm) projector output, (V, D_llm) embeddings of used tokens -> (B, A, 1 + V) logits."""
        with torch.autocast(projected.device.type, enabled=False):
            classes = torch.cat([self.blank.float()[None], embeddings.float()])
            bias = nn.functional.pad(self.blank_bias.float()[None], (0, len(embeddings)))
            return projected.float() @ classes.T * self.log_temperature.float().exp() + bias

    def llm_input(
        self, logits: torch.Tensor, projected: torch.Tensor, embeddings: torch.Tensor
    ) -> torch.Tensor:
        """The expected embedding, (B, A, D_llm): a blank counts as zero; and what the gate lets through."""
        with torch.autocast(projected.device.type, enabled=False):
            expected = logits.softmax(dim=-1)[..., 1:] @ embeddings.float()
            return expected if self.gate is None else expected + self.gate.float() * projected.float()


def ctc_scores(logits: torch.Tensor, audio_tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(B,) log-probabilities of texts: all alignments of each; minus infinity where there is none.

    Args: as of `ctc_loss`.
    """
    return -_losses(logits, audio_tokens, labels, reduction="none", zero_infinity=False)


def ctc_loss(
    logits: torch.Tensor,
    audio_tokens: torch.Tensor,
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """Summed CTC loss over the number of label tokens, or over `num_items_in_batch`.

    Args:
        logits: (B, A, 1 + V). audio_tokens: (B,) the real ones.
        labels: (B, N) classes of the head, -100 behind each text. A clip with more of them than audio tokens
            cannot be aligned and counts as 0; one without any is all blank.
    """
    loss = _losses(logits, audio_tokens, labels, reduction="sum", zero_infinity=True)
    count = max(1, int((labels != -100).sum())) if num_items_in_batch is None else num_items_in_batch
    return loss / count


def _losses(
    logits: torch.Tensor, audio_tokens: torch.Tensor, labels: torch.Tensor, **how: Any
) -> torch.Tensor:
    targets = [row[row != -100] for row in labels]
    return nn.functional.ctc_loss(
        logits.log_softmax(dim=-1).transpose(0, 1),
        torch.cat(targets),
        audio_tokens.to("cpu"),
        torch.tensor([len(row) for row in targets]),
        blank=BLANK,
        **how,
    )


def greedy_classes(logits: torch.Tensor, audio_tokens: torch.Tensor) -> list[list[int]]:
    """The best class of each position, repetitions and blanks left out: one list for each clip."""
    best = logits.argmax(dim=-1)
    rows = [row[:count].unique_consecutive() for row, count in zip(best, audio_tokens.tolist(), strict=True)]
    return [row[row != BLANK].tolist() for row in rows]


def best_by_both(
    model: Any,
    processor: Any,
    vocabulary: "CtcVocabulary",
    inputs: Mapping[str, torch.Tensor],
    texts: Sequence[str],
    weight: float,
) -> list[str]:
    """The best text of each clip by log p(text | audio), the LLM's plus `weight` times that of the CTC head.

    What the head reads greedily is one more candidate. `model` and `processor` are those of a checkpoint.

    Args:
        vocabulary: of the model's head.
        inputs: what `generate` takes of B clips; with the encoder's frames of them it does not run again.
        texts: as many of each clip, such as its beams, clip by clip.
    """
    prompt = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    audio = model.get_audio_embeddings(**{name: inputs[name] for name in inputs if name not in prompt})
    read = [vocabulary.decode(row) for row in greedy_classes(audio.ctc_logits, audio.counts)]
    beams = len(texts) // len(read)
    candidates = [[text.strip() for text in texts[place::beams]] for place in range(beams)]
    scored: list[list[tuple[float, str]]] = [[] for _ in read]
    for ones in (*candidates, read):  # one of each clip
        tokens = [processor.transcript_ids(text) for text in ones]
        classes = [torch.tensor(vocabulary.encode(text), dtype=torch.long) for text in ones]
        labels, targets = (
            pad_sequence(rows, batch_first=True, padding_value=-100).to(audio.embeddings.device)
            for rows in (tokens, classes)
        )
        by_llm = model.get_text_scores(labels, audio=audio, **prompt)
        by_head = ctc_scores(audio.ctc_logits, audio.counts, targets).clamp(min=WORST_SCORE)
        for own, score, text in zip(scored, (by_llm + weight * by_head).tolist(), ones, strict=True):
            own.append((score, text))
    return [max(own)[1] for own in scored]


# ---------------------------------------------------------------- when words were said


def head_log_probs(model: Any, inputs: Mapping[str, torch.Tensor]) -> list[np.ndarray]:
    """A batch, of which what the encoder takes is read -> (A, 1 + V) of the head for each clip."""
    names = ("input_features", "input_features_mask", "encoder_frames", "encoder_frames_mask")
    logits, counts = model.get_ctc_logits(**{name: inputs[name] for name in names if name in inputs})
    rows = logits.detach().float().log_softmax(dim=-1).cpu().numpy()
    return [row[:count] for row, count in zip(rows, counts.tolist(), strict=True)]


def holds_speech(log_probs: np.ndarray, threshold: float, max_doubt: float | None = None) -> bool:
    """Whether the head, (A, 1 + V), recognises anything: not in silence, noise or the babble of many.

    It does if it holds a position for something else than blank with a probability of at least `threshold`,
    and knows what: its `doubt` is at most `max_doubt`, if that is known. With 0 it always does.
    """
    surest = 1 - np.exp(log_probs[:, BLANK].min())
    return not threshold or bool(surest >= threshold and (max_doubt is None or doubt(log_probs) <= max_doubt))


def doubt(log_probs: np.ndarray) -> float:
    """How little the head, (A, 1 + V), knows what is said: nats for each position not held for blank.

    That is its entropy, over the number of positions so held and two more, so that a few do not count much.
    """
    chances = np.exp(log_probs)
    return float(-(chances * log_probs).sum() / ((1 - chances[:, BLANK]).sum() + 2))


def timed_words(
    vocabulary: "CtcVocabulary", text: str, log_probs: np.ndarray, chunk: Chunk, position_samples: int
) -> list[Word]:
    """The words of a chunk's transcript, with their times in the recording and their confidence.

    The head recognises a token in one position or two, somewhere within its word. Between the tokens of two
    words the quietest stretch of the sound is where the one word ends and the other starts. A word that the
    head cannot spell takes no time, and has no confidence.

    Args:
        log_probs: (A, 1 + V) of the head, without padding.
        position_samples: how many samples a position has.
    """
    power, position_hops = hop_power(chunk.samples), position_samples / HOP_SAMPLES
    heard = heard_words(log_probs, [vocabulary.encode(word) for word in text.split()])
    # First and last hop of each word that is certain, and the gaps before, between and behind.
    certain = [np.rint(np.array(word[:2]) * position_hops).clip(max=len(power)) for word in heard if word]
    edges = np.array([0, *np.ravel(certain), len(power)], dtype=int).reshape(-1, 2)
    gaps = [gap_between(power, *edge) for edge in edges.tolist()]
    times = iter(pairwise(gaps))
    words: list[Word] = []
    for written, word in zip(text.split(), heard, strict=True):
        if word is None:
            now = words[-1].end if words else chunk.start
            words.append(Word(written, now, now))
        else:
            (_, begin), (end, _) = next(times)
            words.append(
                Word(written, chunk.start + begin * HOP_SECONDS, chunk.start + end * HOP_SECONDS, word[2])
            )
    return words


def heard_words(log_probs: np.ndarray, spelled: list[list[int]]) -> list[tuple[float, float, float] | None]:
    """Where the words of a transcript are recognised, given as their classes; `None` for one without any.

    Returns: of each the middle of its first position and of its last, counted in positions, and its
    confidence: the product of its tokens' probabilities, each the highest of the positions that the alignment
    gives the token. Source: posteriors as confidence, https://doi.org/10.1016/j.specom.2004.12.004
    """
    spans = iter(align(log_probs, [one for own in spelled for one in own]).tolist())
    heard: list[tuple[float, float, float] | None] = []
    for own in spelled:
        places = list(islice(spans, len(own)))
        if not places:
            heard.append(None)
            continue
        chances = [
            log_probs[int(first) : math.ceil(behind), one].max()
            for one, (first, behind) in zip(own, places, strict=True)
        ]
        half = min(0.5, *((behind - first) / 2 for first, behind in places))
        heard.append((places[0][0] + half, places[-1][1] - half, math.exp(sum(chances))))
    return heard


def align(log_probs: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    """The most probable alignment of a text by CTC (Viterbi).

    Args:
        log_probs: (A, 1 + V). classes: N of them, no blank among them.

    Returns: (N, 2) the first position of each class and the one behind its last. Where a text has more
    classes than there are positions, several share one: the numbers are then fractions.
    """
    states = np.full(2 * len(classes) + 1, BLANK)  # blank, class, blank, class, ..., blank
    states[1::2] = classes
    skips = np.zeros(len(states), bool)  # a blank may be left out before these
    skips[3::2] = states[3::2] != states[1:-2:2]
    needed = len(classes) + int((states[3::2] == states[1:-2:2]).sum())
    shares = max(1, -(-needed // len(log_probs)))
    emitted = np.repeat(log_probs[:, states].astype(np.float64), shares, axis=0)
    scores = np.where(np.arange(len(states)) < 2, emitted[0], -np.inf)
    steps = np.zeros(emitted.shape, np.int8)  # by how many states each was reached
    for place in range(1, len(emitted)):
        one, two = (np.pad(scores, (by, 0), constant_values=-np.inf)[:-by] for by in (1, 2))
        reached = np.stack([scores, one, np.where(skips, two, -np.inf)])
        steps[place] = reached.argmax(axis=0)
        scores = reached.max(axis=0) + emitted[place]
    path = np.zeros(len(emitted), int)
    path[-1] = len(states) - 1 if len(states) == 1 or scores[-1] >= scores[-2] else len(states) - 2
    for place in range(len(emitted) - 1, 0, -1):
        path[place - 1] = path[place] - steps[place, path[place]]
    own = 2 * np.arange(len(classes)) + 1
    return np.stack([np.searchsorted(path, own), np.searchsorted(path, own, side="right")], axis=1) / shares


# ---------------------------------------------------------------- spelling


def vocabulary_of(model: Any, processor: Any) -> "CtcVocabulary":
    """Of a checkpoint's head; it is read off the whole tokenizer, so keep it."""
    return CtcVocabulary(processor.tokenizer, model.ctc_head.token_ids.tolist())


class CtcVocabulary:
    """Texts to classes of the head and back, by the LLM's tokenizer.

    A text is tokenised as it stands inside a sentence, each word with its leading space. A token that the
    head does not know is spelled by characters, and a character by bytes.
    """

    def __init__(self, tokenizer: Any, token_ids: Iterable[int]):
        self.tokenizer = tokenizer
        self.token_ids = [int(token_id) for token_id in token_ids]
        self.classes = {token_id: place + 1 for place, token_id in enumerate(self.token_ids)}
        self.byte_ids = byte_token_ids(tokenizer)

    def encode(self, text: str) -> list[int]:
        """Classes of a text; what cannot be spelled with the used tokens is left out."""
        if not text.strip():
            return []
        ids = [known for token_id in sentence_ids(self.tokenizer, text) for known in self._known(token_id)]
        return [self.classes[token_id] for token_id in ids]

    def decode(self, classes: Iterable[int]) -> str:
        """The text of some classes, no blank among them."""
        ids = [self.token_ids[one - 1] for one in classes]
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()

    def _known(self, token_id: int) -> list[int]:
        if token_id in self.classes:
            return [token_id]
        spelled = []
        for character in self.tokenizer.decode([token_id]):
            ids = self.tokenizer(character, add_special_tokens=False)["input_ids"]
            if not self.classes.keys() >= set(ids):
                ids = [self.byte_ids[byte] for byte in character.encode() if byte in self.byte_ids]
            spelled += [one for one in ids if one in self.classes]
        return spelled


def used_token_ids(tokenizer: Any, texts: Iterable[str]) -> list[int]:
    """The tokens that these texts need, and those of single characters, so that any text can be spelled."""
    texts = [text for text in texts if text.strip()]
    characters = {character for text in texts for character in text}
    used = {token_id for text in texts for token_id in sentence_ids(tokenizer, text)}
    for character in characters:
        used.update(tokenizer(character, add_special_tokens=False)["input_ids"])
    used.update(byte_token_ids(tokenizer).values())
    return sorted(used - {tokenizer.unk_token_id})


def sentence_ids(tokenizer: Any, text: str) -> list[int]:
    """Tokens of a text as they are inside a sentence, where a space stands before its first word."""
    return tokenizer(f" {text}", add_special_tokens=False)["input_ids"]


def byte_token_ids(tokenizer: Any) -> dict[int, int]:
    """The token of each byte, of tokenizers that have them: byte-level BPE and SentencePiece's fallback."""
    vocabulary = tokenizer.get_vocab()
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    byte_level = {byte: chr(byte) for byte in printable}
    byte_level |= {byte: chr(0x100 + place) for place, byte in enumerate(others)}  # as GPT-2's
    fallback = {byte: f"<0x{byte:02X}>" for byte in range(0x100)}
    for names in (fallback, byte_level):
        found = {byte: vocabulary[name] for byte, name in names.items() if name in vocabulary}
        if len(found) > 200:  # bytes that no UTF-8 text holds may be missing
            return found
    return {}
