"""The CTC head: against float64 by hand and torch's own CTC; what the LLM reads of it; texts it can spell."""

import copy

import pytest
import torch
from tiny_configs import tiny_lean_config, tiny_text_config
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GenerationConfig,
    GraniteConfig,
    PreTrainedTokenizerFast,
    TextIteratorStreamer,
)
from transformers.utils import find_labels

from modeling_slam import SlamAsrConfig, SlamAsrForConditionalGeneration
from modeling_slam.evaluation.arguments import EvaluationArguments
from modeling_slam.evaluation.decoding import SlamRecogniser
from modeling_slam.evaluation.fast_search import transcribe
from modeling_slam.model.checkpoints import base_tensors, llm_embeddings, projector_scale, trained_parts
from modeling_slam.model.ctc_head import (
    CtcHead,
    CtcVocabulary,
    best_by_both,
    ctc_loss,
    greedy_classes,
    used_token_ids,
    vocabulary_of,
)
from modeling_slam.model.pipeline_slam import SlamAsrPipeline

TOKENS = [3, 5, 9, 12]


def with_head(base_models, processor, **settings) -> SlamAsrForConditionalGeneration:
    """A model whose head knows `TOKENS` and says something."""
    torch.manual_seed(0)
    config = tiny_lean_config(base_models, num_encoder_layers=2, ctc_vocab_size=len(TOKENS), **settings)
    config.audio_token_id = processor.audio_token_id
    parts = trained_parts(config)
    parts["ctc_head"].begin(TOKENS, 1.0, 1.0)
    torch.nn.init.normal_(parts["ctc_head"].blank)
    if parts["ctc_head"].gate is not None:
        torch.nn.init.constant_(parts["ctc_head"].gate, 0.5)
    model = SlamAsrForConditionalGeneration.from_base_models(config, parts.state_dict()).eval()
    model.generation_config.update(num_beams=2, max_new_tokens=6, eos_token_id=1, pad_token_id=0)
    return model


@pytest.fixture
def byte_level() -> PreTrainedTokenizerFast:
    """Byte-level BPE as GPT-2's and Qwen's, with two merged words."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "c"), ("Ġc", "a"), ("Ġca", "t"), ("a", "t")]
    vocabulary = {token: place for place, token in enumerate([*alphabet, *("".join(m) for m in merges)])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False)


def test_logits_and_expected_embedding_are_those_by_hand():
    config = SlamAsrConfig(text_config=tiny_text_config(), ctc_vocab_size=4, llm_input="gated")
    head = CtcHead(config)
    width = config.text_config.hidden_size
    torch.manual_seed(0)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    projected, embeddings = torch.randn(2, 3, width), torch.randn(4, width)
    logits = head(projected, embeddings)
    x, e, b = projected.double(), embeddings.double(), head.blank.double()
    temperature = head.log_temperature.double().exp()
    by_hand = torch.stack(
        [x @ b * temperature + head.blank_bias.double(), *(x @ row * temperature for row in e)], -1
    )
    torch.testing.assert_close(logits.double(), by_hand, atol=1e-4, rtol=1e-4)
    weights = by_hand.exp() / by_hand.exp().sum(-1, keepdim=True)
    expected = sum(weights[..., place + 1, None] * e[place] for place in range(4)) + head.gate.double() * x
    torch.testing.assert_close(
        head.llm_input(logits, projected, embeddings).double(), expected, atol=1e-4, rtol=1e-4
    )


def test_an_untrained_head_has_logits_that_vary_by_one():
    config = SlamAsrConfig(text_config=tiny_text_config(), ctc_vocab_size=500)
    head = CtcHead(config)
    width, scale = config.text_config.hidden_size, 0.02
    embeddings = 0.05 * torch.randn(500, width)
    head.begin(range(500), float(embeddings.norm(dim=1).mean()), scale)
    logits = head(scale * torch.randn(1, 50, width), embeddings)
    assert 0.8 < float(logits[..., 1:].std()) < 1.25


def test_loss_is_torchs_own_clip_by_clip_over_all_label_tokens():
    torch.manual_seed(0)
    logits = torch.randn(3, 7, 5)
    lengths = torch.tensor([7, 4, 2])
    labels = torch.tensor([[1, 2, 2], [3, -100, -100], [-100, -100, -100]])  # the last clip is silent
    expected = 0.0
    for row, length, text in zip(logits.double(), lengths, ([1, 2, 2], [3], []), strict=True):
        log_probabilities = row[:length].log_softmax(-1)[:, None]
        targets = torch.tensor([text], dtype=torch.long)
        expected += torch.nn.functional.ctc_loss(
            log_probabilities, targets, (int(length),), (len(text),), reduction="sum"
        )
    torch.testing.assert_close(ctc_loss(logits, lengths, labels).double(), expected / 4, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        ctc_loss(logits, lengths, labels, 8).double(), expected / 8, atol=1e-5, rtol=1e-5
    )


def test_a_text_longer_than_its_audio_counts_as_nothing():
    logits = torch.randn(1, 2, 5, requires_grad=True)
    loss = ctc_loss(logits, torch.tensor([2]), torch.tensor([[1, 1, 1]]))
    loss.backward()
    assert float(loss) == 0.0
    assert torch.isfinite(logits.grad).all()


def test_greedy_leaves_out_repetitions_blanks_and_padding():
    classes = torch.tensor([[1, 1, 0, 1, 2, 2, 0, 3], [0, 0, 0, 4, 4, 4, 4, 4]])
    logits = torch.nn.functional.one_hot(classes, 5).float()
    assert greedy_classes(logits, torch.tensor([8, 3])) == [[1, 1, 2, 3], []]


def test_any_text_can_be_spelled(byte_level):
    used = used_token_ids(byte_level, ["a cat sat", ""])
    vocabulary = CtcVocabulary(byte_level, used)
    for text in ("a cat sat", "the cat", "smørrebrød", "猫 is 🐈"):
        assert vocabulary.decode(vocabulary.encode(text)) == text
    assert vocabulary.encode(" ") == []
    assert len(vocabulary.encode("sat cat")) < len(" sat cat")  # a known word is one token


def test_an_unknown_token_is_spelled_by_its_characters(byte_level):
    used = used_token_ids(byte_level, ["tac"])  # " cat" is one token, and not among them
    vocabulary = CtcVocabulary(byte_level, used)
    assert vocabulary.decode(vocabulary.encode("cat")) == "cat"


@pytest.mark.parametrize("config_class", [GemmaConfig, Gemma3TextConfig, GraniteConfig])
def test_embeddings_are_those_that_the_llm_itself_gives(config_class, base_models, tmp_path):
    """Gemma multiplies in its embedding layer, Granite behind it."""
    text_config = config_class(
        vocab_size=30, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8,
    )  # fmt: skip
    llm = AutoModelForCausalLM.from_config(text_config)
    llm.save_pretrained(tmp_path / "scaled")
    config = tiny_lean_config(base_models | {"text_model_id": str(tmp_path / "scaled")})
    config.text_config = text_config
    expected = llm.get_input_embeddings()(torch.arange(30)).float()
    found = llm_embeddings(config, base_tensors(config))
    torch.testing.assert_close(found, expected.detach(), atol=1e-6, rtol=1e-5)
    outputs = torch.nn.functional.layer_norm(torch.randn(100, 16), [16]) * projector_scale(found)
    assert outputs.norm(dim=1).mean() == pytest.approx(float(expected.norm(dim=1).mean()), rel=0.02)


def test_a_checkpoint_of_a_few_kilobytes_gives_the_head_back(
    base_models, tiny_processor, two_clips, tmp_path
):
    model = with_head(base_models, tiny_processor, llm_input="gated", drop_blanks=0.5)
    model.save_pretrained(tmp_path / "saved")
    loaded = SlamAsrForConditionalGeneration.from_pretrained(tmp_path / "saved").eval()
    inputs = tiny_processor(audio=two_clips)
    features = {n: inputs[n] for n in ("input_features", "input_features_mask")}
    for before, after in zip(
        model.get_ctc_logits(**features), loaded.get_ctc_logits(**features), strict=True
    ):
        torch.testing.assert_close(after, before)
    assert loaded.ctc_head.token_ids.tolist() == TOKENS
    assert model.generate(**inputs).tolist() == loaded.generate(**inputs).tolist()
    assert all(p.requires_grad for p in loaded.ctc_head.parameters())


@pytest.mark.parametrize("llm_input", ["projector", "expected", "gated"])
@pytest.mark.parametrize("drop_blanks", [None, 0.3])
def test_a_clip_is_read_the_same_alone_and_in_a_batch(
    llm_input, drop_blanks, base_models, tiny_processor, two_clips
):
    model = with_head(base_models, tiny_processor, llm_input=llm_input, drop_blanks=drop_blanks)
    together = model.generate(**tiny_processor(audio=two_clips))
    for row, clip in zip(together, two_clips, strict=True):
        alone = model.generate(**tiny_processor(audio=clip))[0]
        assert row[: len(alone)].tolist() == alone.tolist()
    torch.testing.assert_close(transcribe(model, **tiny_processor(audio=two_clips)), together)
    losses = [model(**tiny_processor(audio=clip, text="ab")).loss for clip in two_clips]
    both = model(**tiny_processor(audio=two_clips, text=["ab", "ab"])).loss
    torch.testing.assert_close(both, sum(losses) / 2, atol=1e-5, rtol=1e-5)


def test_dropped_blanks_are_gone_before_the_llm_and_one_token_stays(base_models, tiny_processor, two_clips):
    model = with_head(base_models, tiny_processor, drop_blanks=0.3)
    seen = []
    model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    inputs = tiny_processor(audio=two_clips, text=["ab", "cd"])
    logits, counts = model.get_ctc_logits(inputs["input_features"], inputs["input_features_mask"])
    model(**inputs)
    text = int((inputs["attention_mask"].sum(1) - counts)[0])
    kept = [
        max(1, int((row[:count].softmax(-1)[:, 0] <= 0.3).sum()))
        for row, count in zip(logits, counts.tolist(), strict=True)
    ]
    assert seen == [max(kept) + text]
    torch.nn.init.constant_(model.ctc_head.blank_bias, 1e4)  # all is blank
    model(**inputs)
    assert seen[-1] == 1 + text


def test_ctc_weight_adds_the_heads_loss_to_the_llms(base_models, tiny_processor, two_clips):
    model = with_head(base_models, tiny_processor)
    inputs = dict(tiny_processor(audio=two_clips, text=["ab", "cd"]))
    labels = torch.tensor([[1, 2], [3, -100]])
    plain = model(**inputs).loss
    joint = model(**inputs, ctc_targets=labels, ctc_weight=0.5).loss
    logits, counts = model.get_ctc_logits(inputs["input_features"], inputs["input_features_mask"])
    tokens = int((inputs["labels"] != -100).sum())
    torch.testing.assert_close(joint, plain + 0.5 * ctc_loss(logits, counts, labels, tokens))


def test_a_model_without_a_head_says_how_to_get_one(tiny_model, tiny_processor, two_clips):
    inputs = tiny_processor(audio=two_clips)
    with pytest.raises(ValueError, match="--align_epochs"):
        tiny_model.get_ctc_logits(inputs["input_features"], inputs["input_features_mask"])


def test_a_qformer_has_no_order_in_time_for_a_head(base_models):
    with pytest.raises(ValueError, match="qformer"):
        tiny_lean_config(base_models, projector_type="qformer", ctc_vocab_size=4)


def test_a_head_needs_no_change_of_the_config_it_is_built_from(base_models):
    config = tiny_lean_config(base_models, projector_scale=None)
    before = copy.deepcopy(config)
    model = SlamAsrForConditionalGeneration.from_base_models(config)
    assert config.to_dict() == before.to_dict()
    assert model.config.projector_scale == pytest.approx(
        float(model.get_input_embeddings().weight.norm(dim=1).mean()) / config.text_config.hidden_size**0.5
    )


def test_a_head_without_tokens_and_a_setting_without_a_head_are_refused(base_models):
    with pytest.raises(ValueError, match="token_ids"):
        SlamAsrForConditionalGeneration.from_base_models(tiny_lean_config(base_models, ctc_vocab_size=4))
    with pytest.raises(ValueError, match="ctc_vocab_size"):
        SlamAsrForConditionalGeneration.from_base_models(tiny_lean_config(base_models, llm_input="expected"))


def test_tokens_stay_integers_beside_frozen_weights_in_bf16(base_models, tiny_processor, tmp_path):
    model = with_head(base_models, tiny_processor, trained_in_float32=True)
    model.save_pretrained(tmp_path / "saved")
    loaded = SlamAsrForConditionalGeneration.from_pretrained(tmp_path / "saved", dtype=torch.bfloat16)
    config = model.config
    config.trained_in_float32 = True  # saving a model of one dtype unsets it
    mixed = SlamAsrForConditionalGeneration.from_base_models(
        config,
        {n: t for n, t in model.state_dict().items() if n.startswith(("projector.", "ctc_head."))},
        dtype=torch.bfloat16,
    )
    for one in (loaded, mixed):
        assert one.ctc_head.token_ids.tolist() == TOKENS
        assert one.ctc_head.token_ids.dtype == torch.long
    assert mixed.ctc_head.blank.dtype == torch.float32


def test_a_plain_trainer_finds_the_labels_by_their_name():
    """With two of them it would wait for both, and give no loss."""
    assert find_labels(SlamAsrForConditionalGeneration) == ["labels"]


def by_hand(model, processor, clip, text, weight) -> float:
    """The joint score of one text: the LLM's log-probabilities of its tokens, and torch's own CTC."""
    batch = dict(processor(audio=[clip], text=[text]))
    labels = batch.pop("labels")
    logits = model(**batch, num_items_in_batch=1).logits
    due = labels[0, 1:] != -100
    if model.config.drop_blanks is not None:
        loss = model(**batch, labels=labels, num_items_in_batch=1).loss
        by_llm = -float(loss)
    else:
        chosen = logits[0, :-1].log_softmax(-1).gather(1, labels[0, 1:, None].clamp(min=0))[:, 0]
        by_llm = float(chosen[due].sum())
    ctc, counts = model.get_ctc_logits(batch["input_features"], batch["input_features_mask"])
    classes = CtcVocabulary(processor.tokenizer, TOKENS).encode(text)
    by_head = -torch.nn.functional.ctc_loss(
        ctc[0].log_softmax(-1)[:, None], torch.tensor([classes]), counts, torch.tensor([len(classes)]),
        reduction="sum",
    )  # fmt: skip
    return by_llm + weight * max(float(by_head), -1e4)


@pytest.mark.parametrize("drop_blanks", [None, 0.3])
@pytest.mark.parametrize("weight", [0.3, 2.0])
@torch.no_grad()
def test_the_best_text_is_that_of_the_highest_joint_score_and_its_batch_changes_nothing(
    base_models, tiny_processor, two_clips, weight, drop_blanks
):
    model = with_head(base_models, tiny_processor, llm_input="expected", drop_blanks=drop_blanks)
    vocabulary = CtcVocabulary(tiny_processor.tokenizer, TOKENS)
    texts = [vocabulary.decode([1 + n % len(TOKENS) for n in range(length)]) for length in (1, 2, 3)]
    assert len(set(texts)) == 3
    inputs = tiny_processor(audio=two_clips)
    best = best_by_both(model, tiny_processor, vocabulary, inputs, [*texts, *texts[::-1]], weight)
    for clip, found in zip(two_clips, best, strict=True):
        features = tiny_processor(audio=[clip])
        logits = model.get_ctc_logits(features["input_features"], features["input_features_mask"])
        (own,) = [vocabulary.decode(row) for row in greedy_classes(*logits)]
        scores = {text: by_hand(model, tiny_processor, clip, text, weight) for text in (*texts, own)}
        assert scores[found] == pytest.approx(max(scores.values()), abs=1e-3)
        assert best_by_both(model, tiny_processor, vocabulary, features, texts, weight) == [found]


@torch.no_grad()
def test_pipeline_and_evaluation_choose_among_the_same_beams(
    base_models, tiny_processor, two_clips, tmp_path
):
    model = with_head(base_models, tiny_processor, llm_input="expected")
    inputs = tiny_processor(audio=two_clips)
    beams = model.generate(**inputs, num_beams=4, num_return_sequences=4)
    texts = tiny_processor.batch_decode(beams, skip_special_tokens=True)
    vocabulary = vocabulary_of(model, tiny_processor)
    expected = best_by_both(model, tiny_processor, vocabulary, inputs, texts, 0.5)
    pipeline = SlamAsrPipeline(model, tiny_processor, device="cpu", num_beams=4, batch_size=2)
    assert [result["text"] for result in pipeline([*two_clips], ctc_weight=0.5)] == expected

    other = GenerationConfig(num_beams=4, max_new_tokens=6, eos_token_id=model.generation_config.eos_token_id)
    model.generation_config.num_beams = 8
    pipeline = SlamAsrPipeline(model, tiny_processor, device="cpu", batch_size=2, ctc_weight=0.5)
    assert [result["text"] for result in pipeline([*two_clips], generation_config=other)] == expected

    model.save_pretrained(tmp_path)
    tiny_processor.save_pretrained(tmp_path)
    settings = {"model": str(tmp_path), "output_dir": "unused", "num_beams": 4, "ctc_weight": 0.5}
    recogniser = SlamRecogniser(EvaluationArguments(**settings, max_new_tokens=6), torch.device("cpu"))
    assert [transcript.text for transcript in recogniser.transcribe(inputs)] == expected


def test_a_joint_score_needs_a_head_and_no_streamer(tiny_model, tiny_processor, two_clips):
    pipeline = SlamAsrPipeline(tiny_model, tiny_processor, device="cpu")
    with pytest.raises(ValueError, match="`ctc_weight` needs a model with a CTC head"):
        pipeline(two_clips[0], ctc_weight=0.3)
    for weight in (-0.3, "0.3", None):
        with pytest.raises(ValueError, match="`ctc_weight` must be a number from 0 on"):
            pipeline(two_clips[0], generate_kwargs={"ctc_weight": weight})
    streamer = TextIteratorStreamer(tiny_processor.tokenizer, timeout=60)
    with pytest.raises(ValueError, match="`ctc_weight` needs no `streamer`"):
        pipeline(two_clips[0], ctc_weight=0.3, streamer=streamer)
