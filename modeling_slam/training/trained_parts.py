"""What a run trains beside LoRA, before the LLM is loaded: fresh, of another model, or of the run itself.

Of the LLM the embeddings alone are read, which the CTC head shares and the projector's scale follows from.
"""

from dataclasses import dataclass
from typing import Any

import torch

from modeling_slam import SlamAsrConfig
from modeling_slam.model.checkpoints import (
    base_tensors,
    lazy_tensors,
    llm_embeddings,
    projector_scale,
    trained_parts,
)
from modeling_slam.model.ctc_head import CtcVocabulary, used_token_ids
from modeling_slam.training.init_from import fitting
from modeling_slam.training.run_health import readable


@dataclass
class TrainedParts:
    """What is trained beside LoRA, before the LLM is loaded: weights of projector and CTC head.

    `vocabulary` of the head, and the (V, D_llm) `embeddings` of its tokens; `None` without a head.
    """

    weights: dict[str, torch.Tensor] | None = None
    vocabulary: CtcVocabulary | None = None
    embeddings: torch.Tensor | None = None


def trained_parts_of(
    config: SlamAsrConfig,
    tokenizer: Any,
    texts: list[str],
    has_head: bool,
    start: dict[str, torch.Tensor],
    checkpoint: str | None = None,
) -> TrainedParts:
    """Fresh weights, or those of `start` where they fit; with a head, one for the tokens of these texts.

    The tokens of a run that goes on from `checkpoint` are those that it began with.

    Sets `config.ctc_vocab_size`, and `config.projector_scale` where it is `None`.
    """
    if not has_head and not start:
        return TrainedParts()  # fresh ones, made with the model
    token_ids = used_token_ids(tokenizer, texts) if has_head and checkpoint is None else []
    if has_head and checkpoint is not None:
        with readable(checkpoint):
            token_ids = lazy_tensors(checkpoint)["ctc_head.token_ids"][...].tolist()
    config.ctc_vocab_size = len(token_ids)
    weights, embeddings = begin(config, token_ids)
    vocabulary = CtcVocabulary(tokenizer, token_ids) if has_head else None
    return TrainedParts(weights | fitting(start, weights), vocabulary, embeddings)


def begin(config: SlamAsrConfig, token_ids: list[int]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Fresh weights of projector and CTC head, and the (V, D_llm) embeddings of the used tokens.

    Sets `config.projector_scale` where it is `None`. Of the LLM, the embeddings alone are read.
    """
    embeddings = llm_embeddings(config, base_tensors(config))
    if config.projector_scale is None:
        config.projector_scale = projector_scale(embeddings)
    parts = trained_parts(config)
    if config.has_ctc_head:
        head: Any = parts["ctc_head"]
        head.begin(token_ids, float(embeddings.norm(dim=1).mean()), config.projector_scale)
    return parts.state_dict(), embeddings[token_ids]
