"""Beam and greedy search: the tokens of transformers' own, without the work that cannot change them.

- The prompt is read once per clip; its keys and values are then shared out to the beams.
- A clip leaves the batch when its transcript is settled; the others go on in a smaller batch.
- The vocabulary is projected at the last position alone.

`transcribe` passes `search` to transformers as its `custom_generate`, so settings, logits processors and
stopping criteria are prepared there. What `search` does not cover (`is_covered`) transformers runs itself.

`n` clips still searched, `k` beams, `V` vocabulary, `N` new tokens at most.

Source: the scoring rules are those of `GenerationMixin._beam_search` in transformers 5.
"""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import distributed
from torch.distributed.fsdp import FSDPModule
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessorList,
    StoppingCriteriaList,
)
from transformers.generation import GenerationMode
from transformers.generation.utils import GENERATION_MODES_MAPPING

from modeling_slam import SlamAsrForConditionalGeneration
from modeling_slam.model.modeling_slam import TranscriptGuard

NEVER = -1.0e9  # transformers' score of what may not be chosen
SCORES_AT_ONCE = 1 << 22  # 16 MB: what the allocator hands out again; larger tensors cost fresh pages
CACHE_NAMES = ("cache", "past_key_values")  # of transformers 5.24 and later, and before
# What `SlamAsrForConditionalGeneration.generate` takes that is no generation setting.
INPUTS = {
    "input_ids",
    "input_features",
    "input_features_mask",
    "attention_mask",
    "encoder_frames",
    "encoder_frames_mask",
    "generation_config",
    "max_tokens_per_second",
}


def transcribe(model: SlamAsrForConditionalGeneration, **arguments: Any) -> torch.Tensor:
    """`model.generate(**arguments)`, through `search` where that gives the same tokens: (B, N)."""
    settings = copy.deepcopy(arguments.get("generation_config") or model.generation_config)
    others = settings.update(**{name: value for name, value in arguments.items() if name not in INPUTS})
    if is_covered(settings, others):
        arguments["custom_generate"] = search
    return model.generate(**arguments, synced_gpus=runs_in_step(model))


def runs_in_step(model: torch.nn.Module) -> bool:
    """Whether each process has a share of the weights only: all must then read equally often."""
    by_fsdp = any(isinstance(module, FSDPModule) for module in model.modules())
    return by_fsdp or any(hasattr(weight, "ds_id") for weight in model.parameters())  # of ZeRO-3


class TokenScores:
    """Scores of the next token, a few rows at a time: what a step holds in memory stays in the caches."""

    def __init__(self, processors: LogitsProcessorList, rows_per_clip: int):
        # Rows leave the search. Processors of transformers know none; the guard's budgets leave with them.
        self.processors = [p for p in processors if not isinstance(p, TranscriptGuard)]
        self.guard = next((p for p in processors if isinstance(p, TranscriptGuard)), None)
        self.budgets: torch.Tensor | None = None  # (R,)
        self.shortest: float = float("inf")
        if self.guard is not None:
            self.budgets = self.guard.budgets.repeat_interleave(rows_per_clip)
            self.shortest = int(self.budgets.min())

    def __call__(self, tokens: torch.Tensor, logits: torch.Tensor) -> Iterator[torch.Tensor]:
        """New tokens so far (R, length) and logits (R, V) -> scores of some of the rows, (r, V), in order."""
        for rows in self._parts(logits):
            yield self._processed(tokens, logits[rows].float(), rows)

    def best(
        self, tokens: torch.Tensor, logits: torch.Tensor, width: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the same, the (R, `width`) highest log-probabilities after processing, and their tokens."""
        nothing_acts = not self.processors and tokens.shape[1] < self.shortest
        scores, chosen = [], []
        for rows in self._parts(logits):
            part = logits[rows].float()
            if nothing_acts:  # the logits are in the right order: normalise only what is chosen
                best = part.topk(width)
                scores.append(best.values - part.logsumexp(dim=-1, keepdim=True))
            else:
                best = self._processed(tokens, part.log_softmax(dim=-1), rows).topk(width)
                scores.append(best.values)
            chosen.append(best.indices)
        return torch.cat(scores), torch.cat(chosen)

    def _parts(self, logits: torch.Tensor) -> Iterator[slice]:
        at_once = max(1, SCORES_AT_ONCE // logits.shape[1])
        return (slice(first, first + at_once) for first in range(0, len(logits), at_once))

    def _processed(self, tokens: torch.Tensor, scores: torch.Tensor, rows: slice) -> torch.Tensor:
        for processor in self.processors:
            scores = processor(tokens[rows], scores)
        if self.guard is not None and self.budgets is not None and tokens.shape[1] >= self.shortest:
            guard = TranscriptGuard(self.budgets[rows], self.guard.eos_token_id)
            scores = guard(tokens[rows], scores)
        return scores

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these rows."""
        if self.budgets is not None:
            self.budgets = self.budgets[rows]


def is_covered(settings: GenerationConfig, options: dict[str, Any]) -> bool:
    """Whether `search` gives what transformers would.

    Args:
        settings: of this call.
        options: what the caller gave beside them, such as a streamer or logits processors: these may depend
            on a row's place in the batch, which changes here.
    """
    plain = settings.get_generation_mode() in (GenerationMode.BEAM_SEARCH, GenerationMode.GREEDY_SEARCH)
    returns_ids = not settings.return_dict_in_generate
    own_cache = settings.cache_implementation is None and settings.use_cache is not False
    whole_rows = settings.guidance_scale is not None or settings.watermarking_config is not None
    unusual = whole_rows or settings.low_memory or settings.prefill_chunk_size is not None
    return plain and returns_ids and own_cache and not unusual and not options


@torch.no_grad()
def search(
    model: torch.nn.Module,
    input_ids: torch.Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    synced_gpus: bool = False,
    **inputs: Any,
) -> torch.Tensor:
    """A `custom_generate` for prompts of embeddings -> (B * num_return_sequences, N) new tokens.

    With `synced_gpus` all processes read on until the last of them has its transcripts.
    """
    beams = generation_config.num_beams or 1
    cache = next((inputs[name] for name in CACHE_NAMES if name in inputs), None)
    if type(cache) is not DynamicCache:  # of an LLM with a memory of its own kind, such as Mamba's
        own = getattr(model, GENERATION_MODES_MAPPING[generation_config.get_generation_mode()])
        return own(
            input_ids,
            logits_processor=logits_processor,
            stopping_criteria=stopping_criteria,
            generation_config=generation_config,
            synced_gpus=synced_gpus,
            **inputs,
        )
    llm = CachedLLM(model, beams, **inputs)
    logits = llm.read_prompt()
    kind = BeamSearch if beams > 1 else GreedySearch
    scores = TokenScores(logits_processor, beams)
    state = kind(len(logits), scores, stopping_criteria, generation_config, logits.device)
    tokens, rows = state.advance(logits)
    while len(tokens):
        if synced_gpus:
            some_search_on(True, logits.device)
        logits = llm.read(tokens, rows)
        tokens, rows = state.advance(logits)
    while synced_gpus and some_search_on(False, logits.device):
        llm.read_anything()
    return state.transcripts()


def some_search_on(this_one: bool, device: torch.device) -> bool:
    """Whether any process has something to read; each says so of itself before it reads."""
    number = torch.tensor(float(this_one), device=device)
    distributed.all_reduce(number)
    return bool(number > 0)


class CachedLLM:
    """The LLM and what it has read, row by row."""

    def __init__(
        self,
        model: torch.nn.Module,
        num_beams: int,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        **options: Any,
    ):
        """transformers has repeated each prompt `num_beams` times, (B * k, L); one of each is read.

        Args:
            options: of the model's `forward`, its cache among them.
        """
        self.model, self.options = model, options
        self.cache: DynamicCache = next(options[name] for name in CACHE_NAMES if name in options)
        self.prompt = inputs_embeds[::num_beams]
        self.mask = None if attention_mask is None else attention_mask[::num_beams]  # `None`: no padding
        self.positions = None if position_ids is None else position_ids[::num_beams]

    def read_prompt(self) -> torch.Tensor:
        """-> (B, V) logits of the first token."""
        return self._forward(inputs_embeds=self.prompt)

    def read(self, tokens: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """(R,) tokens, each behind one of the rows read so far -> (R, V) logits of what follows."""
        self.cache.reorder_cache(rows)  # ty: ignore[invalid-argument-type]
        if self.mask is not None:
            self.mask = torch.nn.functional.pad(self.mask[rows], (0, 1), value=1)
        if self.positions is not None:
            self.positions = self.positions[rows, -1:] + 1
        return self._forward(input_ids=tokens[:, None])

    def read_anything(self) -> None:
        """So that the other processes get the share of the weights that is here."""
        self.model(inputs_embeds=self.prompt[:1, -1:], use_cache=False)

    def _forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        if self.positions is not None:
            inputs["position_ids"] = self.positions
        outputs = self.model(**inputs, attention_mask=self.mask, **self.options, return_dict=True)
        return outputs.logits[:, -1]


class GreedySearch:
    """The likeliest token at each place."""

    def __init__(
        self,
        batch: int,
        token_scores: TokenScores,
        stopping_criteria: StoppingCriteriaList,
        settings: GenerationConfig,
        device: torch.device,
    ):
        self.token_scores, self.criteria = token_scores, stopping_criteria
        pad = settings.pad_token_id if settings.pad_token_id is not None else 0
        self.done = torch.full((batch, settings.max_length), pad, device=device)
        self.tokens = self.done.clone()  # (n, N)
        self.clips = torch.arange(batch, device=device)  # (n,) which of the batch
        self.length = 0

    def advance(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(n, V) -> the next token of each clip that goes on, and its row in `logits`."""
        scores = self.token_scores(self.tokens[:, : self.length], logits)
        self.tokens[:, self.length] = torch.cat([part.argmax(dim=-1) for part in scores])
        self.length += 1
        ended = self.criteria(self.tokens[:, : self.length], None)
        open_rows = (~ended).nonzero()[:, 0]
        if len(open_rows) < len(ended):
            self.done[self.clips[ended]] = self.tokens[ended]
            self.tokens, self.clips = self.tokens[open_rows], self.clips[open_rows]
            self.token_scores.keep(open_rows)
        return self.tokens[:, self.length - 1], open_rows

    def transcripts(self) -> torch.Tensor:
        """(B, N)"""
        return self.done[:, : self.length]


class BeamSearch:
    """The likeliest transcripts among those that continue the `k` best beginnings, place by place."""

    # fmt: off
    PER_CLIP = ("clips", "limits", "tokens", "scores", "finished", "finished_scores", "finished_lengths")
    # fmt: on

    def __init__(
        self,
        batch: int,
        token_scores: TokenScores,
        stopping_criteria: StoppingCriteriaList,
        settings: GenerationConfig,
        device: torch.device,
    ):
        self.token_scores, self.criteria, self.settings = token_scores, stopping_criteria, settings
        ends = settings.eos_token_id
        end_tokens = 0 if ends is None else len(ends) if isinstance(ends, list) else 1
        beams = settings.num_beams
        self.width = max(2, 1 + end_tokens) * beams  # so that `k` go on where all the best end
        self.limits = torch.full((batch,), settings.max_length, device=device)  # (n,) longest transcripts
        if token_scores.budgets is not None:
            self.limits = self.limits.minimum(token_scores.budgets[::beams] + 1)
        # Log-probabilities only add up to less, so what is behind stays behind; processors might raise them.
        self.only_best = settings.num_return_sequences in (None, 1) and not token_scores.processors

        pad = settings.pad_token_id if settings.pad_token_id is not None else 0
        self.done = torch.full((batch, beams, settings.max_length), pad, device=device)  # (B, k, N)
        self.done_lengths = torch.zeros((batch, beams), dtype=torch.long, device=device)
        self.clips = torch.arange(batch, device=device)  # (n,) which of the batch
        self.tokens, self.finished = self.done.clone(), self.done.clone()  # (n, k, N) best first
        self.scores = torch.full((batch, beams), NEVER, device=device)
        self.finished_scores = self.scores.clone()  # (n, k) divided by length ** length_penalty
        self.finished_lengths = self.done_lengths.clone()  # 0 where nothing has finished
        self.scores[:, 0] = 0.0  # the beams are equal at first: only one may be continued
        self.length = 0

    def advance(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(n * k, V), at first (n, V) -> each open beam's next token, and the row of `logits` it follows."""
        shared = self.length == 0  # one row for all beams of a clip
        if shared:
            logits = logits.repeat_interleave(self.settings.num_beams, dim=0)
        scores, parents, tokens = self._candidates(logits)
        candidates = take(self.tokens, parents)
        candidates[:, :, self.length] = tokens
        self.length += 1
        ended = self.criteria(candidates[:, :, : self.length].flatten(0, 1), None).view_as(scores)

        self._finish(candidates, scores, ended)
        self.scores, best = (scores + ended * NEVER).topk(self.settings.num_beams)
        self.tokens = take(candidates, best)
        settled = self._settled() | ended.all(dim=1)
        rows = torch.arange(len(self.clips), device=parents.device)[:, None]
        rows = rows.expand_as(best) if shared else rows * self.settings.num_beams + parents.gather(1, best)
        return self._release(settled, rows)

    def _candidates(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The (n, width) best continuations: their scores, the beams they continue, their last tokens."""
        read = self.tokens[:, :, : self.length].flatten(0, 1)
        scores, tokens = self.token_scores.best(read, logits, self.width)
        scores = scores.view(*self.scores.shape, self.width) + self.scores[..., None]
        scores, places = scores.flatten(1).topk(self.width)
        return scores, places // self.width, tokens.view(len(scores), -1).gather(1, places)

    def _finish(self, candidates: torch.Tensor, scores: torch.Tensor, ended: torch.Tensor) -> None:
        """Keep the `k` best of the finished transcripts; only candidates among the `k` best may join."""
        beams = self.settings.num_beams
        new = torch.where(ended, scores / self.length**self.settings.length_penalty, NEVER)[:, :beams]
        lengths = ended[:, :beams] * self.length
        self.finished_scores, best = torch.cat([self.finished_scores, new], dim=1).topk(beams)
        self.finished = take(torch.cat([self.finished, candidates[:, :beams]], dim=1), best)
        self.finished_lengths = torch.cat([self.finished_lengths, lengths], dim=1).gather(1, best)

    def _settled(self) -> torch.Tensor:
        """(n,) True where what is still open can no longer change the result."""
        penalty, stopping = self.settings.length_penalty, self.settings.early_stopping
        best_open = self.scores[:, 0]
        # transformers' rule: all places are taken, and by better ones than the best open beam could become.
        full = (self.finished_lengths > 0).all(dim=1)
        length = self.settings.max_length if stopping == "never" and penalty > 0 else self.length
        settled = full & (best_open / length**penalty <= self.finished_scores[:, -1])
        if stopping is True:
            settled |= full
        if self.only_best:
            # A row of which only the best is returned needs less: nothing open may overtake the best.
            length = self.limits if penalty > 0 else self.length + 1
            settled |= best_open / length**penalty < self.finished_scores[:, 0]
        return settled

    def _release(self, settled: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Store what is settled; the (n', k) rest goes on, flat."""
        going_on = (~settled).nonzero()[:, 0]
        if len(going_on) < len(settled):
            clips = self.clips[settled]
            self.done[clips] = self.finished[settled]
            self.done_lengths[clips] = self.finished_lengths[settled]
            for name in self.PER_CLIP:
                setattr(self, name, getattr(self, name)[going_on])
            rows = rows[going_on]
            beams = torch.arange(self.settings.num_beams, device=rows.device)
            self.token_scores.keep((going_on[:, None] * len(beams) + beams).flatten())
        return self.tokens[:, :, self.length - 1].flatten(), rows.flatten()

    def transcripts(self) -> torch.Tensor:
        """(B * num_return_sequences, N), best first."""
        wanted = self.settings.num_return_sequences or 1
        longest = self.done_lengths[:, :wanted].max()
        return self.done[:, :wanted, :longest].flatten(0, 1)


def take(sequences: torch.Tensor, best: torch.Tensor) -> torch.Tensor:
    """(n, m, N) and (n, k) places among m -> (n, k, N)."""
    return sequences.gather(1, best[..., None].expand(-1, -1, sequences.shape[2]))
