"""One side of a comparison, a program of its own: reads a job and answers every round with a line of JSON.

It measures whatever checkout of this project `PYTHONPATH` names, older ones too. So it imports nothing of
this package, and of the project only what old checkouts have as well: `build_model`, which gives `train.py`
its model, `SlamRecogniser` and `decode`, which are all of `eval.py` but loading, and `from_pretrained`. The
device is the accelerator if there is one, else the CPU; every line below runs on both.
"""

import ctypes
import gc
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import peft
import soundfile
import torch
import transformers
from accelerate import PartialState
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSpeechSeq2Seq

from modeling_slam import SlamAsrForConditionalGeneration, SlamAsrProcessor
from modeling_slam.data.collator import SpeechCollator
from modeling_slam.evaluation.arguments import EvaluationArguments
from modeling_slam.evaluation.decoding import SlamRecogniser, decode
from modeling_slam.evaluation.predictions import PredictionStore
from modeling_slam.training.arguments import LoraArguments, ModelArguments
from modeling_slam.training.assembly import build_config, build_model, build_processor

Job = dict[str, Any]  # the fields are in benchmarks/README.md
Answer = dict[str, Any]
Clip = dict[str, Any]
Batch = dict[str, torch.Tensor]
Transcriber = Callable[[list[Clip]], list[str]]

DEVICE = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
# The paper's, which all sides can compute, whatever this code's defaults are.
PAPER_PROJECTOR = {
    "projector_scale": 1.0, "projector_stack": 5, "projector_context": 1, "projector_dropout": 0.1,
    "projector_frame_dropout": 0.0, "llm_input": "projector", "drop_blanks": None,
}  # fmt: skip
# As eval.py chooses: bfloat16 on a GPU that computes in it, else float32.
DTYPE = EvaluationArguments(model="unused", output_dir="unused").torch_dtype(DEVICE)
BF16 = DTYPE is torch.bfloat16
RESET, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")  # of Linux


# ------------------------------------------------------------------ a training step


def training(job: Job) -> Iterator[Answer]:
    """A round is one step on every batch: forward, backward, clipping, AdamW. Batches are ready before."""
    model, batches = (plain_training if job["way"] == "plain" else our_training)(job)
    model.to(DEVICE)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.01, fused=True)

    def loss_of(batch: Batch) -> torch.Tensor:
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=BF16):
            return model(**batch).loss

    def steps(batches: list[Batch]) -> None:
        for batch in batches:
            loss_of(batch).backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    with torch.no_grad():
        loss = loss_of(batches[0]).item()  # in evaluation mode, so that sides can be compared
    model.train()
    heaviest = max(batches, key=lambda batch: batch["input_ids"].numel())
    # AdamW's state is there from the first step on, so the second has the peak.
    memory = peak_memory(lambda: steps([heaviest] * 2), model)
    while True:
        peak = matmul_peak()
        yield {"seconds": timed(lambda: steps(batches)), "loss": loss, "matmul_peak": peak} | memory


def our_training(job: Job) -> tuple[nn.Module, list[Batch]]:
    """As `train.py` trains: clips of like length in one batch."""
    config, processor, model_args = assembled(job)
    model = build_model(config, processor, model_args, bf16=BF16).eval()
    clips = sorted(job["clips"], key=lambda clip: clip["duration"])
    return model, [to_device(SpeechCollator(processor)(rows)) for rows in batches_of(job, clips)]


def plain_training(job: Job) -> tuple[nn.Module, list[Batch]]:
    """Clips in random order; ids, mask and labels as ours, features padded to 30 s."""
    config, processor, _ = assembled(job)
    batches = []
    for rows in batches_of(job, job["clips"]):
        batch = SpeechCollator(processor)(rows)
        sounds = [soundfile.read(row["path"], dtype="float32")[0] for row in rows]
        features = processor.feature_extractor(sounds, sampling_rate=16_000, return_tensors="pt")
        text = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
        batches.append(to_device({"input_features": features["input_features"], **text}))
    return PlainModel(config).eval(), batches


class PlainModel(nn.Module):
    """What one puts together from transformers' parts alone.

    Whisper's own encoder hears 30 s, whatever the clip's length; its frames are cut to the clip. The
    vocabulary is projected at every position, as an LLM's own loss does. Batches are not grouped by length.
    """

    def __init__(self, config: Any):
        super().__init__()
        whisper = AutoModelForSpeechSeq2Seq.from_pretrained(config.audio_model_id, dtype=DTYPE)
        self.encoder = whisper.get_encoder()
        self.encoder.layers = self.encoder.layers[: config.num_encoder_layers]
        self.llm = AutoModelForCausalLM.from_pretrained(config.text_model_id, dtype=DTYPE)
        self.requires_grad_(False)
        if config.lora_rank:
            lora = peft.LoraConfig(
                r=config.lora_rank,
                lora_alpha=config.lora_alpha,
                lora_dropout=config.lora_dropout,
                target_modules=config.lora_target_modules,
            )
            self.llm = peft.get_peft_model(self.llm, lora)
        self.stack, self.audio_token_id = config.projector_stack, config.audio_token_id
        width, hidden = config.text_config.hidden_size, config.projector_hidden_size
        self.projector = nn.Sequential(
            nn.Linear(config.audio_config.d_model * self.stack, hidden),
            nn.ReLU(),
            nn.Dropout(config.projector_dropout),
            nn.Linear(hidden, width),
            nn.LayerNorm(width),
        )

    def forward(self, input_features: torch.Tensor, input_ids: torch.Tensor, **text: torch.Tensor) -> Any:
        frames = self.encoder(input_features.to(DTYPE)).last_hidden_state  # (B, 1500, D_enc)
        batch, length, width = frames.shape
        stacked = frames.reshape(batch, length // self.stack, width * self.stack)
        tokens = self.projector(stacked.to(self.projector[0].weight.dtype))  # (B, 300, D_llm)
        is_audio = input_ids == self.audio_token_id
        kept = torch.arange(tokens.shape[1], device=DEVICE) < is_audio.sum(dim=1, keepdim=True)
        embeddings = self.llm.get_input_embeddings()(input_ids.masked_fill(is_audio, 0))
        embeddings = embeddings.masked_scatter(is_audio[..., None], tokens[kept].to(embeddings.dtype))
        return self.llm(inputs_embeds=embeddings, **text)


# ------------------------------------------------------------------ an evaluation


def evaluation(job: Job) -> Iterator[Answer]:
    """A round transcribes all clips by beam search: audio in, transcripts out."""
    model, transcribe = plain_transcriber(job) if job["way"] == "plain" else our_transcriber(job)
    longest = sorted(job["clips"], key=lambda clip: clip["duration"])[-job["batch_size"] :]
    memory = peak_memory(lambda: transcribe(longest), model)
    while True:
        written: list[str] = []
        seconds = timed(lambda: written.extend(transcribe(job["clips"])))  # noqa: B023 (called at once)
        yield {"seconds": seconds, "transcripts": written} | memory


def our_transcriber(job: Job) -> tuple[nn.Module, Transcriber]:
    """As `eval.py` decodes: longest clips first, audio read in a worker, predictions written to a store."""
    given = {name: job[name] for name in ("num_beams", "max_new_tokens", "batch_size")}
    arguments = EvaluationArguments(model=job["checkpoint"], output_dir="unused", **given)
    recogniser = SlamRecogniser(arguments, DEVICE)
    state = PartialState(cpu=DEVICE.type == "cpu")

    def transcribe(clips: list[Clip]) -> list[str]:
        fixed = {"speaker": "", "language": "en"}
        rows = [{**clip, **fixed, "id": clip["path"], "raw_text": clip["text"]} for clip in clips]
        speech = datasets.Dataset.from_list(rows).cast_column("audio", datasets.Audio(decode=False))
        with tempfile.TemporaryDirectory() as directory:
            store = PredictionStore(directory)
            store.start({})
            batches = (arguments.batch_size, arguments.num_workers, arguments.batch_seconds)
            decode(recogniser, speech, store, state, *batches)
            return [row.raw_prediction for row in store.finish(expected=len(clips))]

    return recogniser.model, transcribe


def plain_transcriber(job: Job) -> tuple[nn.Module, Transcriber]:
    """As anybody decodes who has loaded the checkpoint: batches in the order of the data, `generate`."""
    processor = SlamAsrProcessor.from_pretrained(job["checkpoint"])
    model = SlamAsrForConditionalGeneration.from_pretrained(job["checkpoint"], dtype=DTYPE).to(DEVICE).eval()
    limits = {name: job[name] for name in ("num_beams", "max_new_tokens")}

    @torch.inference_mode()
    def transcribe(clips: list[Clip]) -> list[str]:
        written = []
        for rows in batches_of(job, clips):
            inputs = processor(audio=[row["path"] for row in rows]).to(DEVICE, DTYPE)
            ids = model.generate(**inputs, **limits)
            written += processor.batch_decode(ids, skip_special_tokens=True)
        return written

    return model, transcribe


# ------------------------------------------------------------------ loading


def loading(job: Job) -> Iterator[Answer]:
    """A round loads the weights onto the device and reads each of them once; files are in the page cache."""
    sources: list[tuple[Any, str]] = [(SlamAsrForConditionalGeneration, job["checkpoint"])]
    if job["way"] == "plain":  # both base models whole, to be cut afterwards
        sources = [(AutoModelForSpeechSeq2Seq, job["encoder"]), (AutoModelForCausalLM, job["llm"])]

    def load() -> None:
        models = [kind.from_pretrained(source, dtype=DTYPE).to(DEVICE) for kind, source in sources]
        for model in models:
            read_weights(model)

    load()
    while True:
        seconds: list[float] = []
        memory = peak_memory(lambda: seconds.append(timed(load)))  # noqa: B023 (called at once)
        yield {"seconds": seconds[0]} | memory


def checkpoint(job: Job) -> Iterator[Answer]:
    """Saves an untrained checkpoint as `job["checkpoint"]`."""
    config, processor, model_args = assembled(job)
    model = build_model(config, processor, model_args, bf16=False)
    processor.save_pretrained(job["checkpoint"])
    yield {"seconds": timed(lambda: model.save_pretrained(job["checkpoint"]))}


# ------------------------------------------------------------------ models and batches


def assembled(job: Job) -> tuple[Any, Any, ModelArguments]:
    transformers.set_seed(job["seed"])
    model_args = ModelArguments(encoder=job["encoder"], llm=job["llm"], keep_layers=job["keep_layers"])
    config = build_config(model_args, LoraArguments(lora_rank=job["lora_rank"]))
    config.update(PAPER_PROJECTOR)
    return config, build_processor(model_args, config), model_args


def batches_of(job: Job, clips: list[Clip]) -> list[list[Clip]]:
    size = job["batch_size"]
    return [clips[start : start + size] for start in range(0, len(clips), size)]


def to_device(batch: Batch) -> Batch:
    return {name: tensor.to(DEVICE) for name, tensor in batch.items()}


# ------------------------------------------------------------------ how it is measured


def timed(work: Callable[[], Any]) -> float:
    """Seconds; the device has done all that it was told when the clock is read."""
    wait = torch.accelerator.synchronize if DEVICE.type != "cpu" else lambda: None
    wait()
    start = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start


def matmul_peak() -> float:
    """Operations a second in `torch.mm` of large squares, the best of several sizes."""
    best = 0.0
    for size in (1024, 2048, 4096, 8192):
        left, right = torch.randn(2, size, size, device=DEVICE, dtype=DTYPE)
        torch.mm(left, right)
        seconds = timed(lambda: torch.mm(left, right))  # noqa: B023 (called at once)
        best = max(best, 2 * size**3 / seconds)
        if seconds > 0.05:  # the next size takes eight times as long, and is no faster
            break
    return best


def read_weights(model: nn.Module) -> None:
    """A weight that is mapped from a file enters memory when it is read."""
    for parameter in model.parameters():
        parameter.detach().sum()


def peak_memory(work: Callable[[], Any], model: nn.Module | None = None) -> dict[str, int | None]:
    """Bytes by which `work` raises memory at its height, beyond the weights of `model`."""
    if model is not None:
        read_weights(model)
    gc.collect()
    before = peak_bytes(start_anew=True)
    work()
    return {"peak_extra_bytes": (peak_bytes() - before) or None}


def peak_bytes(start_anew: bool = False) -> int:
    """Highest use of memory: torch's counter on an accelerator, resident pages on Linux, else unknown, 0."""
    if DEVICE.type != "cpu":
        if start_anew:
            torch.accelerator.reset_peak_memory_stats()
        return torch.accelerator.max_memory_allocated()
    if not RESET.exists():
        return 0
    if start_anew:
        trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)
        trim(0)  # what is free goes back, so that the work must ask for it
        RESET.write_text("5")
    return 1024 * int(re.findall(r"VmHWM:\s*(\d+) kB", STATUS.read_text())[0])


PARTS = {work.__name__: work for work in (training, evaluation, loading, checkpoint)}


def main() -> None:
    job = json.loads(Path(os.environ["SLAM_BENCH_JOB"]).read_text(encoding="utf-8"))
    versions = [f"{module.__name__} {module.__version__}" for module in (torch, transformers, peft)]
    about = {"versions": ", ".join([*versions, str(DTYPE).removeprefix("torch.")]), "again": True}
    for answer in PARTS[job["part"]](job):
        print(json.dumps(answer | about), flush=True)
        if not sys.stdin.readline():
            return


if __name__ == "__main__":
    main()
