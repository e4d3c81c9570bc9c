"""A study file becomes exactly the runs it spans, and what is wrong with it is named before anything runs."""

import csv
import re
import shutil
from pathlib import Path

import pytest

from modeling_slam.analysis.parameters import parameter_counts
from modeling_slam.study import load_study
from modeling_slam.study.engine import check_data
from modeling_slam.study.runner import eval_flags, train_flags

ROOT = Path(__file__).parents[2]
TABLE_2 = ROOT / "modeling_slam" / "paper" / "tables" / "table2_wer.csv"


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch) -> None:
    """Paths in the committed studies start at the repository."""
    monkeypatch.chdir(ROOT)


def test_the_papers_study_is_its_table_2():
    """The same 204 configurations, and encoders smaller by Red.% to a tenth of a point."""
    with TABLE_2.open(newline="", encoding="utf-8") as file:
        expected = {
            (row["encoder"], int(row["kept_layers"]), row["language"], row["mode"]): float(
                row["encoder_reduction_pct"]
            )
            for row in csv.DictReader(file)
        }
    study = load_study("studies/paper.yaml")
    assert len(study.runs) == len(expected) == 204
    for run in study.runs:
        spec = run.spec
        stated = expected.pop((spec.encoder_name, spec.keep_layers, spec.language, spec.mode))
        assert 100 * parameter_counts(run.config).reduction == pytest.approx(stated, abs=0.1)
        assert spec.llm == "Qwen/Qwen2.5-3B"
        assert (run.config.projector_scale, spec.train_flags["align_epochs"]) == (1.0, 0)
        lora = (8, 16) if spec.language == "da" else (16, 32)
        assert (spec.lora_rank, spec.lora_alpha) == (lora if spec.mode == "lora" else (0, 0))
    assert not expected
    assert len({spec.name for spec in study.specs}) == 204
    assert len(study.baselines) == 9


def test_the_demo_study_needs_nothing_from_elsewhere():
    specs = load_study("studies/demo.yaml").specs
    assert len(specs) == 36
    assert {spec.keep_layers for spec in specs} == {1, 2, 3, 4, 5, 6}
    assert {spec.language for spec in specs} == {"en", "nl", "da"}
    assert all(Path(path).is_dir() for spec in specs for path in (spec.encoder, spec.llm, spec.dataset))
    assert {spec.train_flags["max_steps"] for spec in specs} == {200}


def test_the_real_study_and_its_settings_from_the_command_line():
    study = load_study("studies/real-small.yaml", ["llm=Qwen/Qwen2.5-1.5B", "datasets.en.dataset=/digits"])
    names = {(spec.keep_layers, spec.mode, spec.language) for spec in study.specs}
    both = ("projector", "lora")
    expected = {(depth, mode, "en") for depth in (6, 5, 4, 3, 2, 1) for mode in both}
    assert names == expected | {(depth, mode, "nl") for depth in (6, 5, 4) for mode in both}
    assert {spec.llm for spec in study.specs} == {"Qwen/Qwen2.5-1.5B"}
    assert {spec.dataset for spec in study.specs} == {"/digits", "data/dialogue-nl"}
    assert [baseline.name for baseline in study.baselines] == ["base-en", "base-nl"]


def test_a_language_may_have_several_datasets_and_one_is_written_as_ever(study_file, world, tmp_path):
    speech, other = str(world.dataset), shutil.copytree(world.dataset, tmp_path / "other")
    one = load_study(study_file()).specs
    assert load_study(study_file(datasets={"en": {"dataset": [speech]}})).specs == one
    assert {spec.dataset for spec in one} == {speech}
    study = load_study(study_file(), [f"datasets.en.dataset=[{speech}, {other}]"])
    assert [spec.dataset for spec in study.specs] == [[speech, str(other)]] * 2
    check_data(study.runs)
    assert train_flags(study.specs[0], tmp_path)["dataset"] == [speech, str(other)]


def test_a_baseline_is_not_told_how_a_ctc_head_decodes(study_file):
    study = load_study(study_file(eval={"ctc_weight": 0.3, "max_test_clips": 8}), ["baselines=true"])
    assert {spec.eval_flags["ctc_weight"] for spec in study.specs} == {0.3}
    assert [spec.eval_flags for spec in study.baselines] == [{"max_test_clips": 8, "num_beams": 1}]


WRONG = {
    "llm=3": "llm.*expected str, got int",
    "encoders.tiny.keep_layer=[1]": "there is no setting `keep_layer`. Did you mean `keep_layers`?",
    "encoders.tiny.keep_layers=[5]": "--keep_layers.*must be between 1 and 4",
    "encoders.tiny.keep_layers=[3, 3]": "each once; got",
    "encoders.{a b}.model=x": "cannot be a name; expected letters, digits",
    "datasets.en.keep_layers=[4]": "keep_layers` must name at least one",
    "modes=[lora, full]": "Invalid item at index 1 in list 'modes'",
    "train.max_step=3": "tiny on en: unrecognized arguments: --max_step 3",
    "train.max_steps=many": "invalid int value: 'many'",
    "train.eval_strategy=sometimes": "invalid choice: 'sometimes'",
    "train.keep_layers=3": "sets keep_layers, which the study itself gives to each run",
    "train.cache_features=x": "sets cache_features, which the study itself gives",
    "train.projector_type=x": "invalid choice: 'x'",
    "train={projector_type: qformer, align_epochs: 1}": "-en-s42: `--align_epochs` needs audio tokens in the",
    "eval.num_beams=0": "`num_beams` must be at least 1, got 0",
    "lora.alpha=0": "`lora_alpha` must be positive, got 0",
    "recipe=recipes/{size}.yaml": "expected a path with {encoder} and {language} at most",
    "name=a/b": "`name` must be letters, digits",
    "name": "expected a dotted path and a value",
    "llm.x=3": "llm has no settings of its own",
}


@pytest.mark.parametrize("change", WRONG)
def test_what_is_wrong_in_a_study_file_is_named(study_file, change):
    key = change.replace("{a b}", "a b") if "{a b}" in change else change
    with pytest.raises(ValueError) as raised:  # noqa: PT011 (the message is compared below)
        load_study(study_file(modes=["projector", "lora"]), [key])
    assert re.search(WRONG[change] if ".*" in WRONG[change] else re.escape(WRONG[change]), str(raised.value))


def test_a_missing_setting_and_a_language_that_yaml_reads_as_a_number(study_file, world):
    with pytest.raises(ValueError, match=r"encoders\.tiny: keep_layers missing"):
        load_study(study_file(encoders={"tiny": {"model": str(world.encoder)}}))
    with pytest.raises(ValueError, match="False cannot be a name"):
        load_study(study_file(datasets={False: {"dataset": str(world.dataset)}}))


def test_settings_of_recipe_study_and_dataset_have_the_last_word_in_this_order(study_file, world, tmp_path):
    (tmp_path / "en.yaml").write_text(
        "learning_rate: 0.1\nweight_decay: 0.2\nmax_grad_norm: 0.3\nkeep_layers: 2\nseed: 7\n"
        "speaker_column: speaker\nlora_rank: 2\nlora_alpha: 3\n"
    )
    path = study_file(
        recipe=str(tmp_path / "{language}.yaml"),
        lora=None,
        modes=["lora"],
        train={"weight_decay": 0.5, "max_grad_norm": 0.5},
        datasets={"en": {"dataset": str(world.dataset), "train": {"max_grad_norm": 0.9}}},
    )
    spec = load_study(path).specs[0]
    flags = {name: spec.train_flags[name] for name in ("learning_rate", "weight_decay", "max_grad_norm")}
    assert flags == {"learning_rate": 0.1, "weight_decay": 0.5, "max_grad_norm": 0.9}
    assert (spec.keep_layers, spec.seed, spec.lora_rank, spec.lora_alpha) == (3, 42, 2, 3)
    assert not {"keep_layers", "seed", "lora_rank"} & spec.train_flags.keys()
    assert spec.eval_flags["speaker_column"] == "speaker"  # what the data is, evaluation is told as well


def test_several_datasets_and_languages_are_one_value_of_a_run_and_no_axis(study_file, world, tmp_path):
    names = [str(shutil.copytree(world.dataset, tmp_path / name)) for name in ("queen", "talk")]
    entry = {"dataset": names, "language": ["en", "nl"], "train": {"dataset_weights": [2, 1]}}
    study = load_study(study_file(datasets={"mixed": entry}, modes=["lora"]))
    spec = study.specs[0]
    assert len({one.keep_layers for one in study.specs}) == len(study.specs)
    assert (spec.language, spec.dataset) == ("mixed", names)
    for flags in (
        train_flags(spec, tmp_path / "model"),
        eval_flags(spec, tmp_path / "model", tmp_path),
    ):
        assert (flags["language"], flags["dataset"]) == (["en", "nl"], names)
    assert spec.train_flags["dataset_weights"] == [2, 1]
    assert study.runs[0].data.language == ["en", "nl"]
    with pytest.raises(ValueError, match=r"`language` has 3 values \(en, nl, da\) and `dataset` names 2"):
        load_study(study_file(datasets={"mixed": entry | {"language": ["en", "nl", "da"]}}))
