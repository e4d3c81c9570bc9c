"""Pretrains the demo's LLM: a tiny Qwen2 that knows the demo's three languages and how to copy.

Two kinds of text: plain sentences (a quarter), and a text followed by an instruction and the text again,
written properly. In the second the text comes in pieces of any size (BPE-dropout), stuttering and with
gaps, as a hasty typist writes; reading it is what a frozen LLM needs for reading a projector's audio
tokens. It never sees audio, nor a sentence of validation and test.

The pieces are drawn by the tokenizers library, which takes no seed: two trainings differ.

Source of the pieces: BPE-dropout, https://huggingface.co/papers/1910.13267
"""

import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from modeling_slam.data.text import normalize_text
from modeling_slam.demo.sentences import GRAMMARS
from modeling_slam.demo.speech import sentences_of
from modeling_slam.model.processing_slam import INSTRUCTION

STEPS = 2000
BATCH_SIZE = 48
LEARNING_RATE = 2e-3
WARMUP = 0.05
VOCABULARY = 1024
INSTRUCTIONS = (INSTRUCTION, "Repeat the text.\n", "Correct the spelling.\n")
BPE_DROPOUT = 0.6
STUTTER = 0.12  # how often a piece comes twice
PLAIN = 0.25  # share of plain sentences
GAP = 0.12  # how often a space comes between pieces


def pretrain_llm(directory: Path, seed: int) -> dict[str, Any]:
    """Train and write the LLM and its tokenizer to `directory`; return what was reached."""
    heldout, corpus = corpus_of(seed)
    tokenizer = train_tokenizer(corpus)
    config = Qwen2Config(
        vocab_size=VOCABULARY, hidden_size=128, intermediate_size=384, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024, tie_word_embeddings=True,
        bos_token_id=tokenizer.eos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(config)
    train_lm(model, Examples(tokenizer, seed), corpus)
    loss = round(heldout_loss(model, Examples(tokenizer, seed + 1), heldout), 4)
    print(f"Loss on unread sentences: {loss} a token")
    parameters = model.num_parameters()
    model.to(torch.float16).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return {"steps": STEPS, "sentences": len(corpus), "parameters": parameters, "heldout_loss": loss}


def corpus_of(seed: int) -> tuple[list[str], list[str]]:
    """Normalised sentences: those of validation, and those to learn from."""
    heldout, corpus = [], []
    for language in GRAMMARS:
        splits = sentences_of(language, seed)
        heldout += [normalize_text(text, language) for text in splits["validation"]]
        corpus += [normalize_text(text, language) for text in (*splits["train"], *splits["pretraining"])]
    return heldout, corpus


def train_tokenizer(corpus: list[str]) -> Qwen2Tokenizer:
    """Byte-level BPE with Qwen2.5's special tokens; some slots stay free, as Qwen2.5's do."""
    tokenizer = Qwen2Tokenizer(vocab={"<|endoftext|>": 0}, merges=[]).train_new_from_iterator(
        [*corpus, *INSTRUCTIONS * 20],
        vocab_size=VOCABULARY - 24,
        new_special_tokens=["<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    return tokenizer


class Examples:
    """Sentences as token ids to train on."""

    def __init__(self, tokenizer: Qwen2Tokenizer, seed: int):
        self.tokenizer = tokenizer
        self.draw = random.Random(seed)
        self.pieces = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self.pieces.model.dropout = BPE_DROPOUT
        self.space = tokenizer.encode(" ", add_special_tokens=False)
        self.instructions = [tokenizer.encode(text, add_special_tokens=False) for text in INSTRUCTIONS]

    def __call__(self, sentence: str) -> tuple[list[int], int]:
        """Token ids with end-of-text, and how many at their start are not to be learned."""
        clean = [*self.tokenizer.encode(sentence, add_special_tokens=False), self.tokenizer.eos_token_id]
        if self.draw.random() < PLAIN:
            return clean, 0
        prompt = [*self.typed(sentence), *self.draw.choice(self.instructions)]
        return prompt + clean, len(prompt)

    def typed(self, sentence: str) -> list[int]:
        """The sentence in pieces, some twice, some with a gap before them."""
        ids = []
        for piece in self.pieces.encode(sentence, add_special_tokens=False).ids:
            if self.draw.random() < GAP:
                ids += self.space
            ids += [piece] * (2 if self.draw.random() < STUTTER else 1)
        return ids


def batch_loss(model: Qwen2ForCausalLM, rows: list[tuple[list[int], int]]) -> torch.Tensor:
    ids = pad_sequence([torch.tensor(ids) for ids, _ in rows], batch_first=True)
    labels = [torch.tensor([-100] * skip + ids[skip:]) for ids, skip in rows]
    return model(input_ids=ids, labels=pad_sequence(labels, batch_first=True, padding_value=-100)).loss


def train_lm(model: Qwen2ForCausalLM, examples: Examples, corpus: list[str]) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, STEPS, pct_start=WARMUP)
    bar = tqdm(range(STEPS), desc="LLM", unit="step")
    model.train()
    for _ in bar:
        loss = batch_loss(model, [examples(text) for text in examples.draw.choices(corpus, k=BATCH_SIZE)])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    model.eval()


@torch.no_grad()
def heldout_loss(model: Qwen2ForCausalLM, examples: Examples, sentences: list[str]) -> float:
    return batch_loss(model, [examples(text) for text in sentences]).item()
