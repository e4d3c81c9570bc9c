"""The search gives transformers' tokens, clip by clip, and does less."""

import dataclasses
import functools
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from plain_search import plain_generate, plain_tokens, up_to_end
from transformers import LogitsProcessor, LogitsProcessorList, TextStreamer

import modeling_slam
from modeling_slam import SlamAsrForConditionalGeneration
from modeling_slam.evaluation.fast_search import transcribe
from modeling_slam.training.arguments import LoraArguments, ModelArguments
from modeling_slam.training.assembly import build_config, build_model, build_processor

SPEECH = Path(modeling_slam.__file__).parent / "demo" / "assets" / "speech"
CLIPS = 6
# A random model hardly ever ends: with many end tokens transcripts have all lengths.
ENDS = list(range(1, 12))
SETTINGS = {"max_new_tokens": 16, "eos_token_id": ENDS, "pad_token_id": 63}


@pytest.fixture
def model(tiny_model) -> SlamAsrForConditionalGeneration:
    with torch.no_grad():  # decided enough that scores of different lengths compete
        tiny_model.language_model.lm_head.weight.mul_(12.0)
    return tiny_model


@dataclasses.dataclass
class Prompts:
    """Prompts of different lengths, left-padded, as `generate` of the LLM and of the model take them."""

    ids: torch.Tensor
    mask: torch.Tensor

    def by_transformers(self, model, **settings):
        embeddings = model.get_input_embeddings()(self.ids)
        return model.language_model.generate(inputs_embeds=embeddings, attention_mask=self.mask, **settings)

    def by_us(self, model, **settings):
        return transcribe(model, input_ids=self.ids, attention_mask=self.mask, **settings)

    def by_the_model(self, model, **settings):
        return model.generate(input_ids=self.ids, attention_mask=self.mask, **settings)


@pytest.fixture
def prompts() -> Prompts:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(12, 33, (CLIPS, 9), generator=generator)
    lengths = torch.tensor([9, 4, 7, 9, 2, 6])
    return Prompts(ids, (torch.arange(9) >= 9 - lengths[:, None]).long())


@pytest.fixture
def calls(model, monkeypatch) -> list[torch.Size]:
    """Shapes of what the LLM is given, call by call."""
    seen, forward = [], model.language_model.forward

    def record(*args, **kwargs):
        given = kwargs["input_ids"] if kwargs.get("inputs_embeds") is None else kwargs["inputs_embeds"]
        seen.append(given.shape[:2])
        return forward(*args, **kwargs)

    monkeypatch.setattr(model.language_model, "forward", record)
    return seen


@pytest.mark.parametrize("beams", [1, 2, 4])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"eos_token_id": 5},
        {"eos_token_id": None},
        {"max_new_tokens": 1},
        {"max_new_tokens": 5},
        {"min_new_tokens": 6},
        {"no_repeat_ngram_size": 2, "eos_token_id": ENDS[:2]},
        {"suppress_tokens": [20, 21, 22], "renormalize_logits": True},
    ],
    ids=str,
)
def test_tokens_are_those_of_transformers(model, prompts, beams, changes):
    settings = SETTINGS | {"num_beams": beams} | changes
    for part in (model, model.language_model):  # where a setting that is None comes from
        part.generation_config.eos_token_id = settings["eos_token_id"]
    assert torch.equal(prompts.by_us(model, **settings), prompts.by_transformers(model, **settings))


@pytest.mark.parametrize("way", ["by_us", "by_the_model"])
@pytest.mark.parametrize("beams", [1, 2])
def test_repetition_is_penalised_by_the_clips_own_tokens(model, prompts, beams, way):
    """In a padded batch transformers takes the first new tokens for padding; a prompt alone has none."""
    settings = SETTINGS | {"num_beams": beams, "repetition_penalty": 1.5, "eos_token_id": ENDS[:2]}
    together = getattr(prompts, way)(model, **settings)
    assert not torch.equal(together, getattr(prompts, way)(model, **settings | {"repetition_penalty": 1.0}))
    for row, mask in enumerate(prompts.mask):
        alone = Prompts(prompts.ids[row, mask.bool()][None], torch.ones(1, int(mask.sum())))
        expected = alone.by_transformers(model, **settings)[0]
        assert torch.equal(together[row, : len(expected)], expected)


@pytest.mark.parametrize("penalty", [-1.0, 0.0, 1.0, 3.0])
@pytest.mark.parametrize("stopping", [True, False, "never"])
@pytest.mark.parametrize("returned", [1, 3])
def test_scores_are_compared_as_in_transformers(model, prompts, penalty, stopping, returned):
    settings = SETTINGS | {
        "num_beams": 3,
        "length_penalty": penalty,
        "early_stopping": stopping,
        "num_return_sequences": returned,
    }
    assert torch.equal(prompts.by_us(model, **settings), prompts.by_transformers(model, **settings))


@pytest.mark.parametrize("beams", [1, 2, 4])
def test_each_clip_has_its_own_limit(model, tiny_processor, two_clips, beams):
    settings = {"num_beams": beams, "max_new_tokens": 40, "eos_token_id": [5], "pad_token_id": 63}
    # 4 tokens per second leave 10, 5 and 4.
    inputs = tiny_processor([two_clips[1], two_clips[0], two_clips[0][:12_000]])
    expected = plain_generate(model, inputs, max_tokens_per_second=4, **settings)
    for generate in (model.generate, functools.partial(transcribe, model)):
        assert torch.equal(generate(**inputs, **settings, max_tokens_per_second=4), expected)


@pytest.mark.parametrize("beams", [1, 2])
def test_a_prompt_is_read_once_and_a_clip_leaves_when_it_is_settled(model, prompts, calls, beams):
    tokens = prompts.by_us(model, **SETTINGS, num_beams=beams)
    assert calls[0] == (CLIPS, 9)
    rows = [rows for rows, length in calls[1:] if length == 1]
    assert len(rows) == len(calls) - 1
    assert rows == sorted(rows, reverse=True)
    assert rows[-1] < rows[0]
    if beams == 1:
        ends = torch.nn.functional.pad(torch.isin(tokens, torch.tensor(ENDS)), (0, 1), value=True)
        lengths = ends.int().argmax(dim=1).clamp(max=tokens.shape[1] - 1) + 1
        assert rows == [int((lengths > place).sum()) for place in range(1, int(lengths.max()))]


def test_a_clip_has_the_same_transcript_in_every_batch(model, prompts):
    together = prompts.by_us(model, **SETTINGS, num_beams=2)
    for rows in ([0], [3], [4, 1], [5, 2, 0]):
        some = Prompts(prompts.ids[rows], prompts.mask[rows]).by_us(model, **SETTINGS, num_beams=2)
        assert torch.equal(some, together[rows, : some.shape[1]])
        assert (together[rows, some.shape[1] :] == 63).all()


class LastRowSaysSeven(LogitsProcessor):
    """Depends on the place in the batch."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores[-1] = -torch.inf
        scores[-1, 7] = 0.0
        return scores


@pytest.mark.parametrize(
    "options",
    [
        lambda _: {"num_beams": 2, "do_sample": True},
        lambda _: {"num_beams": 2, "logits_processor": LogitsProcessorList([LastRowSaysSeven()])},
        lambda _: {"num_beams": 2, "prefix_allowed_tokens_fn": lambda batch, ids: [13 + batch, 5]},
        lambda tokenizer: {"num_beams": 1, "streamer": TextStreamer(tokenizer)},
        lambda _: {"num_beams": 1, "cache_implementation": "static"},
        lambda _: {"num_beams": 1, "prompt_lookup_num_tokens": 2},
    ],
    ids=["sampling", "processor", "prefix", "streamer", "static cache", "prompt lookup"],
)
def test_other_options_are_left_to_transformers(model, prompts, tiny_tokenizer, options):
    if "prompt_lookup_num_tokens" in options(tiny_tokenizer):
        prompts.ids, prompts.mask = prompts.ids[:1], prompts.mask[:1]
    outputs = []
    for generate in (prompts.by_us, prompts.by_transformers):
        torch.manual_seed(0)
        try:
            outputs.append(generate(model, **SETTINGS, **options(tiny_tokenizer)).tolist())
        except (ValueError, RuntimeError) as error:
            outputs.append(str(error))
    assert outputs[0] == outputs[1]


def test_scores_are_returned_by_transformers(model, prompts):
    settings = SETTINGS | {"num_beams": 2, "return_dict_in_generate": True, "output_scores": True}
    ours, theirs = prompts.by_us(model, **settings), prompts.by_transformers(model, **settings)
    assert torch.equal(ours.sequences, theirs.sequences)
    assert torch.equal(ours.sequences_scores, theirs.sequences_scores)


@pytest.mark.slow
def test_tokens_are_those_of_transformers_on_real_models_and_speech(real_models):
    """64 clips of the embedded speech; the projector is random, so what is written means nothing."""
    arguments = ModelArguments(
        encoder=str(real_models / "whisper-base"), llm=str(real_models / "qwen2.5-0.5b")
    )
    config = build_config(arguments, LoraArguments(lora_rank=16))
    processor = build_processor(arguments, config)
    torch.manual_seed(0)
    model = build_model(config, processor, arguments, bf16=False).eval()
    clips = [
        row["audio"] for row in Dataset.from_parquet(str(SPEECH / "en" / "test.parquet")).select(range(64))
    ]
    settings = {"num_beams": 2, "max_new_tokens": 12}
    expected = list(plain_tokens(model, processor, clips, **settings))
    order = sorted(range(64), key=lambda place: len(clips[place]["bytes"]))
    for first in range(0, 64, 32):
        places = order[first : first + 32]
        rows = transcribe(model, **processor([clips[place] for place in places]), **settings)
        assert [up_to_end(model, row) for row in rows.tolist()] == [expected[place] for place in places]
