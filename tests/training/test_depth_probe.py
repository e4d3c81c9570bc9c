"""The depth probe: one pass of the encoder, the head aligned at each depth, a table that is gone on with."""

import json

import pytest
from tiny_run import flags

from modeling_slam.data import DataArguments, load_speech
from modeling_slam.data.text import written_text
from modeling_slam.training import depth_probe
from modeling_slam.training.feature_cache import FeatureCache


@pytest.mark.e2e
def test_each_depth_is_aligned_on_frames_of_one_pass_and_stands_in_the_table(
    world, tmp_path, monkeypatch, capsys
):
    passes = []
    encode = FeatureCache._encode
    monkeypatch.setattr(
        FeatureCache,
        "_encode",
        lambda cache, missing, *rest: passes.append(len(missing)) or encode(cache, missing, *rest),
    )
    settings = flags(world, tmp_path / "probe", depths=[3, 1], align_epochs=8, align_learning_rate=1e-2)
    settings = [flag for flag in settings if not flag.startswith(("--depths", "--keep_layers"))]
    depth_probe.main([*settings, "--depths", "3", "1"])
    rows = json.loads((tmp_path / "probe" / "depth_probe.json").read_text())
    assert [row["layers"] for row in rows] == [3, 1]
    assert passes == [56]  # every clip once
    assert f"| 1 | {100 * rows[1]['wer']:.1f} %" in capsys.readouterr().out
    assert (tmp_path / "probe" / "depth_probe.png").stat().st_size > 1000
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("alignment.json")}
    depth_probe.main([*settings, "--depths", "3", "2", "1"])  # one depth more
    assert all(path.stat().st_mtime_ns == written for path, written in before.items())
    rows = json.loads((tmp_path / "probe" / "depth_probe.json").read_text())
    assert [row["layers"] for row in rows] == [3, 2, 1]


def test_a_probe_that_would_hear_changed_clips_is_refused_at_once(world, tmp_path):
    argv = flags(world, tmp_path / "probe", align_augmented=True)
    with pytest.raises(SystemExit, match="leave out `align_augmented`"):
        depth_probe.main([*argv, "--augment", "speed"])


def test_a_probe_aligns_texts_of_the_style_that_is_asked_for(world, tmp_path, monkeypatch):
    seen = []
    make = depth_probe.trained_parts_of
    monkeypatch.setattr(
        depth_probe, "trained_parts_of", lambda *args: seen.append(list(args[2])) or make(*args)
    )
    monkeypatch.setattr(depth_probe, "align", lambda *args: next(iter(())))  # no further
    argv = flags(world, tmp_path / "probe", text_style="written")
    with pytest.raises(StopIteration):
        depth_probe.main([*(flag for flag in argv if not flag.startswith("--keep_layers")), "--depths", "1"])
    clips, _ = load_speech(DataArguments(str(world.dataset)), "train")
    assert seen == [[written_text(text) for text in clips["raw_text"]]]


@pytest.mark.e2e
def test_the_lead_of_a_depth_comes_from_its_own_frames(world, tmp_path):
    """The probe of one depth alone gives what it gives among others."""
    rows = {}
    for name, depths in {"alone": ["1"], "among": ["3", "1"]}.items():
        settings = flags(world, tmp_path / name, align_epochs=4, align_learning_rate=1e-2)
        settings = [flag for flag in settings if not flag.startswith("--keep_layers")]
        depth_probe.main([*settings, "--depths", *depths])
        rows[name] = json.loads((tmp_path / name / "depth_probe.json").read_text())[-1]
    assert rows["alone"]["loss"] == rows["among"]["loss"]


def test_a_probe_goes_on_with_its_own_settings_alone(world, tmp_path):
    def settings(epochs):
        argv = flags(world, tmp_path / "probe", align_epochs=epochs)
        return [*(flag for flag in argv if not flag.startswith("--keep_layers")), "--depths", "1"]

    depth_probe.main(settings(1))
    assert not (tmp_path / "probe" / "frames").exists()
    with pytest.raises(SystemExit, match="align_epochs"):
        depth_probe.main(settings(2))


@pytest.mark.e2e
def test_a_probe_of_another_choice_aligns_the_layers_that_it_keeps(world, tmp_path):
    settings = flags(
        world, tmp_path / "probe", align_epochs=1, layer_choice="uniform", final_layer_norm="refitted"
    )
    settings = [flag for flag in settings if not flag.startswith("--keep_layers")]
    depth_probe.main([*settings, "--depths", "3", "2"])
    rows = json.loads((tmp_path / "probe" / "depth_probe.json").read_text())
    assert [row["kept"] for row in rows] == [[0, 2, 3], [0, 3]]
