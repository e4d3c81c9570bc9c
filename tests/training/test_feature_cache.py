"""Training from cached encoder frames: the same run, and the encoder does not run in it."""

import re

import pytest
import torch
from safetensors.torch import load_file
from tiny_configs import tiny_waveform_config
from tiny_run import flags, logged
from transformers import AutoModel, Wav2Vec2FeatureExtractor

import train
from modeling_slam.data import DataArguments, load_speech
from modeling_slam.data.collator import SpeechCollator
from modeling_slam.data.frame_store import StoreFullError
from modeling_slam.model.audio_encoders import PrunedWhisperEncoder
from modeling_slam.training.arguments import LoraArguments, ModelArguments
from modeling_slam.training.assembly import build_config, build_processor
from modeling_slam.training.feature_cache import CacheArguments, Encoding, FeatureCache

FRAMES = "Encoder frames: {} clips computed, {} in the cache"


def run(world, directory, **changes) -> None:
    train.main(flags(world, directory, num_train_epochs=2, **changes))


@pytest.fixture
def encoded(monkeypatch) -> list[int]:
    """Batch sizes that went through an encoder."""
    sizes, plain = [], PrunedWhisperEncoder.at_depths

    def counted(self, input_features, *args):
        sizes.append(len(input_features))
        return plain(self, input_features, *args)

    monkeypatch.setattr(PrunedWhisperEncoder, "at_depths", counted)
    return sizes


def test_a_run_from_the_cache_is_the_run_without_it(world, tmp_path, encoded, caplog):
    """Losses, scores and weights; 48 training clips and 8 for validation are encoded once for three runs."""
    run(world, tmp_path / "plain")
    # A validation clip: for its loss, and to transcribe it; a few more to see whether the run listens.
    assert sum(encoded) >= 2 * (48 + 2 * 8)
    encoded.clear()
    cache = {"cache_features": tmp_path / "cache", "cache_depths": "3,2"}
    run(world, tmp_path / "first", **cache)
    assert sum(encoded) == 48 + 8
    run(world, tmp_path / "again", **cache)
    assert sum(encoded) == 48 + 8
    for other in ("first", "again"):
        for name in ("loss", "eval_loss", "eval_wer"):
            assert logged(tmp_path / other, name) == pytest.approx(logged(tmp_path / "plain", name), rel=1e-5)
    plain, first = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "first"))
    # But for a few: where a gradient is all but zero, Adam makes a whole step of its rounding.
    differences = torch.cat([(plain[name] - first[name]).abs().flatten() for name in plain])
    assert (differences <= 1e-5).float().mean() > 0.999
    shallower = {"keep_layers": 2, "lora_rank": 0, "cache_features": tmp_path / "cache"}
    run(world, tmp_path / "shallow", **shallower, max_steps=1)
    assert sum(encoded) == 48 + 8, "the other depth was stored in the same pass"


def test_a_bf16_run_from_the_cache_is_the_run_without_it(world, tmp_path):
    """Frames are rounded to bf16 on either path; the products of another batch may round once more."""
    settings = {"bf16": True, "max_steps": 4, "logging_steps": 1, "eval_strategy": "no"}
    run(world, tmp_path / "plain", **settings)
    run(world, tmp_path / "cached", **settings, cache_features=tmp_path / "cache")
    plain, cached = (logged(tmp_path / name, "loss") for name in ("plain", "cached"))
    assert cached == pytest.approx(plain, rel=2e-2)


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_a_run_on_a_waveform_encoder_is_the_same_from_the_cache(world, tmp_path, norm):
    torch.manual_seed(0)
    encoder = AutoModel.from_config(tiny_waveform_config("wav2vec2", feat_extract_norm=norm))
    encoder.save_pretrained(tmp_path / "encoder")
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "encoder")
    settings = {"encoder": tmp_path / "encoder", "keep_layers": 2, "max_steps": 3, "logging_steps": 1}
    settings["eval_strategy"] = "no"
    run(world, tmp_path / "plain", **settings)
    run(world, tmp_path / "cached", **settings, cache_features=tmp_path / "cache", cache_depths="3")
    plain, cached = (logged(tmp_path / name, "loss") for name in ("plain", "cached"))
    assert cached == pytest.approx(plain, rel=1e-5)


def test_other_clips_alone_are_added(world, tmp_path, encoded):
    cache = {"cache_features": tmp_path / "cache", "max_steps": 1, "eval_strategy": "no"}
    run(world, tmp_path / "few", max_train_hours=0.005, **cache)
    few = sum(encoded)
    assert 0 < few < 48
    run(world, tmp_path / "all", **cache)
    assert sum(encoded) == 48


def cache_of(world, directory, encoding=None, keep_layers=3, **settings) -> FeatureCache:
    model = ModelArguments(encoder=str(world.encoder), llm=str(world.llm), keep_layers=keep_layers)
    for name in [name for name in settings if hasattr(model, name)]:
        setattr(model, name, settings.pop(name))
    config = build_config(model, LoraArguments())
    processor = build_processor(model, config)
    encoding = encoding or Encoding(torch.float32, autocast=False)
    return FeatureCache(CacheArguments(str(directory), **settings), config, processor, encoding)


def test_the_key_holds_everything_that_changes_the_frames(world, tmp_path):
    space = cache_of(world, tmp_path).spaces[3]
    assert cache_of(world, tmp_path, cache_depths=["4", "3"]).spaces[3] == space
    assert cache_of(world, tmp_path, projector_stack=3).spaces[3] == space
    others = [
        cache_of(world, tmp_path, keep_layers=2).spaces[2],
        cache_of(world, tmp_path, keep_layers=None, kept_encoder_layers=[0, 1, 3]).spaces[3],
        cache_of(world, tmp_path, pad_to_seconds=3.0).spaces[3],
        cache_of(world, tmp_path, Encoding(torch.bfloat16, autocast=False)).spaces[3],
        cache_of(world, tmp_path, Encoding(torch.bfloat16, autocast=True)).spaces[3],
        cache_of(world, tmp_path, Encoding(torch.float32, autocast=False, attention="eager")).spaces[3],
    ]
    assert len({space, *others}) == 1 + len(others)


def test_one_changed_byte_of_the_encoder_is_another_encoder(world, tmp_path):
    cache = cache_of(world, tmp_path)
    space = cache.spaces[3]
    name = "layers.2.fc2.weight"
    changed = cache.weights[name][...].clone()
    changed[-1, -1] += 1e-3
    cache.weights[name] = changed
    assert [*cache._spaces()] != [space]


SHORT = {"max_steps": 3, "logging_steps": 1, "eval_strategy": "no"}


def test_a_run_too_large_for_the_cache_warns_and_goes_on_without_it(world, tmp_path, caplog):
    run(world, tmp_path / "plain", **SHORT)
    run(world, tmp_path / "run", **SHORT, cache_features=tmp_path / "cache", cache_max_gb=1e-6)
    assert re.search(r"`--cache_max_gb` allows 1e-06.* The run goes on without the cache", caplog.text)
    assert not list((tmp_path / "cache").glob("*/*.safetensors"))
    assert logged(tmp_path / "run", "loss") == logged(tmp_path / "plain", "loss")


def test_where_not_all_depths_fit_the_runs_own_is_stored(world, tmp_path, encoded, caplog):
    run(world, tmp_path / "one", **SHORT, cache_features=tmp_path / "measured")
    (shard,) = (tmp_path / "measured").glob("*/*.safetensors")
    cache = {"cache_features": tmp_path / "cache", "cache_max_gb": 1.5e-9 * shard.stat().st_size}
    for name in ("first", "again"):
        encoded.clear()
        run(world, tmp_path / name, **SHORT, **cache, cache_depths="3,2")
        assert sum(encoded) == (48 if name == "first" else 0)
        assert "This run's depth, 3 layers, is stored if it fits alone." in caplog.text
    assert [path.name[:2] for path in (tmp_path / "cache").glob("*-layers-*")] == ["03"]
    assert logged(tmp_path / "first", "loss") == logged(tmp_path / "one", "loss")


def test_a_depth_that_is_stored_already_needs_no_room_again(world, tmp_path, caplog):
    run(world, tmp_path / "one", **SHORT, cache_features=tmp_path / "cache")
    (shard,) = (tmp_path / "cache").glob("*/*.safetensors")
    room = {"cache_features": tmp_path / "cache", "cache_max_gb": 2.1e-9 * shard.stat().st_size}
    run(world, tmp_path / "both", **SHORT, **room, cache_depths="3,2")
    assert "cache_max_gb" not in caplog.text
    assert len(list((tmp_path / "cache").glob("*/*.safetensors"))) == 2


def test_projector_and_head_are_aligned_alike_with_and_without_room_for_the_frames(world, tmp_path):
    losses = []
    for name, room in (("roomy", 100.0), ("full", 1e-6)):
        settings = SHORT | {"align_epochs": 1, "eval_strategy": "epoch", "cache_max_gb": room}
        run(world, tmp_path / name, **settings, max_train_hours=0.005)
        losses.append(logged(tmp_path / name / "alignment", "eval_loss"))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_any_code_trains_from_a_cache_in_a_directory_of_its_own(world, tmp_path):
    """Fill it, give its reader to a collator: a batch then has the frames of the encoder itself."""
    cache = cache_of(world, tmp_path / "mine")
    clips, _ = load_speech(DataArguments(str(world.dataset)), "validation")
    data, reader = cache.fill({"validation": clips}, num_workers=0)
    rows = [data["validation"][row] for row in (0, 1)]
    batch = SpeechCollator(cache.processor, reader)(rows)
    features = cache.processor(audio=[row["audio"] for row in rows])
    frames, mask = cache.encoder()(features["input_features"], features["input_features_mask"])
    assert torch.equal(batch["encoder_frames_mask"], mask)
    assert torch.allclose(batch["encoder_frames"], frames, atol=1e-5)
    with pytest.raises(StoreFullError, match="give them more room, or store fewer depths"):
        cache_of(world, tmp_path / "small", cache_max_gb=1e-6).fill({"validation": clips}, num_workers=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cache_depths": "3"}, "`cache_depths` needs `cache_features`"),
        ({"cache_features": "{dataset}/cache", "cache_depths": "3,many"}, "must be numbers of layers"),
        ({"cache_features": "{dataset}/cache", "cache_depths": "5"}, "names 5 layers, the encoder has 4"),
        ({"cache_features": "{dataset}/cache", "cache_max_gb": 0}, "`cache_max_gb` must be above 0"),
    ],
)
def test_refuses_settings_that_cannot_work(world, tmp_path, capsys, changes, message):
    with pytest.raises(SystemExit) as ended:
        run(
            world,
            tmp_path / "run",
            **{name: str(value).format(dataset=tmp_path) for name, value in changes.items()},
        )
    assert message in f"{ended.value}{capsys.readouterr().err}"
