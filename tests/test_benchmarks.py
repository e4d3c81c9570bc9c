"""benchmarks: what they print follows from known recordings; figures of real models are not made here."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from tiny_configs import tiny_audio_config, tiny_lean_config, tiny_text_config
from transformers import Qwen2ForCausalLM, WhisperForConditionalGeneration

from modeling_slam import SlamAsrForConditionalGeneration, SlamAsrPipeline
from modeling_slam.long_audio import split

RATE = 16_000


def benchmark(name: str):
    path = Path(__file__).parents[1] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(samples: np.ndarray, text: str) -> dict:
    audio = {"array": samples, "sampling_rate": RATE}
    return {"audio": audio, "text": text, "language": "en", "speaker": "a", "duration": len(samples) / RATE}


def spoken(lengths: list[float], pause: float = 0.2) -> np.ndarray:
    rng = np.random.default_rng(0)
    parts = [np.zeros(round(pause * RATE))]
    for seconds in lengths:
        parts += [0.1 * rng.standard_normal(round(seconds * RATE)), np.zeros(round(pause * RATE))]
    return np.concatenate(parts).astype(np.float32)


def test_long_audio_scores_the_recording_against_its_sentences(tiny_model, tiny_processor, two_clips):
    """References are what the model says of each clip, so one by one nothing is wrong."""
    long_audio = benchmark("long_audio")
    tiny_model.generation_config.update(max_new_tokens=6, eos_token_id=1, pad_token_id=0)
    transcribe = SlamAsrPipeline(tiny_model, tiny_processor, device="cpu")
    rows = [row(clip, transcribe(clip)["text"]) for clip in two_clips] * 3
    said = [long_audio.normalize_text(each["text"], "en") for each in rows]
    rows = [{**each, "text": text} for each, text in zip(rows, said, strict=True)]
    assert len(long_audio.choose(rows, 5 / 60, 0.5)) == 3
    arguments = long_audio.LongAudioArguments(model="", chunk_lengths=[4.0, 10.0], batch_size=2)
    report = long_audio.measure(transcribe, rows, arguments)
    assert report["wer_one_by_one"] == 0.0
    assert report["clips"] == 6
    recording = np.concatenate(
        [part for clip in two_clips * 3 for part in (clip, np.zeros(RATE // 2, np.float32))]
    )
    for entry in report["long"]:
        assert entry["chunks"] == len(list(split([recording], entry["chunk_length_s"], 4.0)))
        assert entry["difference"] == pytest.approx(100 * entry["wer"])


def test_word_times_are_compared_with_the_joints(tiny_model, tiny_processor):
    word_timestamps = benchmark("word_timestamps")
    rows = [row(spoken([0.3, 0.5, 0.4]), "a bc d"), row(spoken([0.4, 0.4]), "three words here")]
    bank = word_timestamps.cut_words(rows)
    assert [word for word, _ in bank["a"]] == ["a", "bc", "d"]
    assert [round(len(sound) / RATE, 2) for _, sound in bank["a"]] == [0.3, 0.5, 0.4]

    rng = np.random.default_rng(0)
    samples, words, spans = word_timestamps.join_words(bank["a"], (0.3, 0.3), rng)
    assert spans[0][0] == pytest.approx(0.3)
    assert len(samples) / RATE == pytest.approx(spans[-1][1] + 0.3)
    found = word_timestamps.errors([word_timestamps.evenly(len(words), samples)], [spans])
    assert found["start"]["median"] <= 0.02
    assert word_timestamps.errors([spans], [spans])["end"] == {"mean": 0.0, "median": 0.0, "within_0.1": 1.0}

    report = word_timestamps.measure(tiny_model, tiny_processor, bank, recordings=2, seed=0)
    for condition in word_timestamps.CONDITIONS:
        assert report[condition]["words"] >= 6
        assert 0 <= report[condition]["ours"]["start"]["mean"] < 3


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="what is in the page cache is told on Linux")
@pytest.mark.parametrize("self_contained", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loading_reads_the_kept_weights_from_disk_once_and_no_others(tmp_path, self_contained, dtype):
    """Two of four encoder layers, beside a decoder as large; read-ahead is counted as well."""
    audio = tiny_audio_config(d_model=256, encoder_ffn_dim=1024, encoder_layers=4, decoder_layers=4)
    text = tiny_text_config(hidden_size=256, intermediate_size=1024, num_hidden_layers=4)
    WhisperForConditionalGeneration(audio).save_pretrained(tmp_path / "whisper")
    Qwen2ForCausalLM(text).save_pretrained(tmp_path / "llm")
    base_models = {"audio_model_id": str(tmp_path / "whisper"), "text_model_id": str(tmp_path / "llm")}
    config = tiny_lean_config(base_models, num_encoder_layers=2, lora_rank=8, self_contained=self_contained)
    config.audio_config, config.text_config = audio, text
    SlamAsrForConditionalGeneration.from_base_models(config).save_pretrained(tmp_path / "model")
    report = benchmark("loading").measure(str(tmp_path / "model"), dtype)
    assert 1 <= report["disk_ratio"] <= 1.02
    if not self_contained:
        assert report["bytes_in_files"] > 1.5 * report["bytes_stored_of_kept_weights"]
