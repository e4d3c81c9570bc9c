"""Floating-point operations that a training step needs, from the configuration and the batch.

Counted is what cannot be left out: the kept encoder layers on real mel frames; the projector; the LLM on
real tokens; backward through activations and the weight gradients of what is trained; the vocabulary where a
token is due. Padding, recomputation and logits that nobody reads are not needed, so code that computes them
has a lower share of the machine's peak.

A product of (m, k) and (k, n) is 2 m k n operations. Additions of biases, norms, activations, softmax and the
optimizer are left out, as is usual: well under 1 % of the whole. Attention is two products of every query
with the keys that it sees, all of the clip in the encoder, those up to its own in the LLM. Tests compare with
torch's `FlopCounterMode`. The formulae are those of Whisper, of the projector `stack_mlp`, and of LLMs of
Qwen2's and Llama's kind.
"""

from typing import Any

from modeling_slam import SlamAsrConfig


def batch_needs(config: SlamAsrConfig, batch: dict[str, Any]) -> float:
    """One step on a batch of `SpeechCollator`.

    Raises:
        ValueError: the encoder is trained, which is not counted here.
    """
    if config.trains_encoder:
        raise ValueError(
            "Operations are counted of a frozen encoder only: leave out `--encoder_lora_rank` and "
            "`--train_encoder_layers`."
        )
    mel_frames = batch["input_features_mask"].sum(dim=1).tolist()
    audio_tokens = int((batch["input_ids"] == config.audio_token_id).sum())
    positions = batch["attention_mask"].sum(dim=1).tolist()
    labels = int((batch["labels"] != -100).sum())
    encoder = sum(encoder_products(config, frames) for frames in mel_frames)
    llm = sum(llm_products(config, length) for length in positions)
    return encoder + projector_products(config, audio_tokens) + llm + vocabulary_products(config, labels)


def encoder_products(config: SlamAsrConfig, mel_frames: int) -> float:
    """One clip forward through the convolutions and the kept layers."""
    audio = config.audio_config
    width, frames = audio.d_model, -(-mel_frames // 2)  # the second convolution has stride 2
    convolutions = 2 * 3 * width * (audio.num_mel_bins * mel_frames + width * frames)
    projections = 2 * frames * 4 * width * width  # query, key, value, output
    feed_forward = 2 * 2 * frames * width * audio.encoder_ffn_dim
    attention = 2 * 2 * frames * frames * width
    return convolutions + config.num_encoder_layers * (projections + feed_forward + attention)


def projector_products(config: SlamAsrConfig, audio_tokens: int) -> float:
    """Forward, weight gradients, and the gradient between its two layers."""
    first = config.projector_stack * config.audio_config.d_model * config.projector_hidden_size
    second = config.projector_hidden_size * config.text_config.hidden_size
    return 2.0 * audio_tokens * (2 * first + 3 * second)


def llm_products(config: SlamAsrConfig, positions: int) -> float:
    """One clip forward and back through the LLM's layers, LoRA included."""
    shapes = llm_shapes(config.text_config)
    linear = 2.0 * positions * sum(inputs * outputs for inputs, outputs in shapes.values())
    attention = 2 * 2.0 * positions * (positions + 1) / 2 * shapes["q_proj"][1]
    lora = 0.0
    if config.lora_rank:
        lora = 2.0 * positions * config.lora_rank * sum(sum(shapes[n]) for n in config.lora_target_modules)
    # A frozen layer has one product back for one forward. Attention has two for each, and so has LoRA, or a
    # trained layer, whose weights have gradients.
    return config.num_llm_layers * ((3 if config.train_llm else 2) * linear + 3 * attention + 3 * lora)


def vocabulary_products(config: SlamAsrConfig, labels: int) -> float:
    """Logits of so many positions, and back to their hidden states, and to the table if it is trained."""
    return (
        (3 if config.train_llm else 2)
        * 2.0
        * labels
        * config.text_config.hidden_size
        * config.text_config.vocab_size
    )


def llm_shapes(text: Any) -> dict[str, tuple[int, int]]:
    """(inputs, outputs) of the linear layers of one LLM layer."""
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    queries, keys = text.num_attention_heads * head, text.num_key_value_heads * head
    return {
        "q_proj": (text.hidden_size, queries),
        "k_proj": (text.hidden_size, keys),
        "v_proj": (text.hidden_size, keys),
        "o_proj": (queries, text.hidden_size),
        "gate_proj": (text.hidden_size, text.intermediate_size),
        "up_proj": (text.hidden_size, text.intermediate_size),
        "down_proj": (text.intermediate_size, text.hidden_size),
    }
