"""What LLMs are found to do is what they do; and those that need their padding train with it."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, BloomConfig, CohereConfig, Gemma2Config, LlamaConfig, OPTConfig

from modeling_slam import SlamAsrConfig, SlamAsrForConditionalGeneration
from modeling_slam.model.llm_traits import traits_of

SIZES = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
LLMS = {
    "llama": (LlamaConfig(**SIZES, intermediate_size=48), True, True),
    "gemma 2": (Gemma2Config(**SIZES, intermediate_size=48, head_dim=8, num_key_value_heads=2), True, False),
    "cohere": (CohereConfig(**SIZES, intermediate_size=48, num_key_value_heads=4), True, False),
    "opt": (OPTConfig(**SIZES, ffn_dim=48, word_embed_proj_dim=32), False, True),
    "bloom": (BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=4), False, True),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["llama", "gemma 2", "cohere", "opt"])
def test_traits_are_found_out(name, dtype):
    config, keeps_clips_apart, head_comes_last = LLMS[name]
    torch.manual_seed(0)
    llm = AutoModelForCausalLM.from_config(config).eval()
    for parameter in llm.parameters():
        nn.init.normal_(
            parameter, std=0.2
        )  # with the usual 0.02, attention hardly matters to a model so small
    traits = traits_of(llm.to(dtype))
    assert traits == (keeps_clips_apart, head_comes_last)


@pytest.mark.parametrize("name", LLMS)
def test_the_loss_is_that_of_each_clip_alone(name, tiny_config, tiny_processor, two_clips):
    torch.manual_seed(0)
    fields = tiny_config.to_dict() | {"text_config": LLMS[name][0]}
    model = SlamAsrForConditionalGeneration(SlamAsrConfig(**fields)).eval()
    transcripts = ["a transcript", "one"]
    with torch.no_grad():
        together = model(**tiny_processor(two_clips, text=transcripts), num_items_in_batch=1).loss
        alone = sum(
            model(**tiny_processor(clip, text=text), num_items_in_batch=1).loss
            for clip, text in zip(two_clips, transcripts, strict=True)
        )
    assert together.item() == pytest.approx(alone.item(), abs=1e-4)
