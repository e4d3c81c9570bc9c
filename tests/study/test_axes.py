"""A study spans the axes of the table, and a run's name, flags and row of the index say where it stands."""

import json
from pathlib import Path

import pandas as pd
import pytest
from tiny_world import PLAIN

from modeling_slam.analysis import StudyResults
from modeling_slam.analysis.parameters import parameter_counts
from modeling_slam.study import load_study, run_study
from modeling_slam.study.axes import AXES, FURTHER, Axis
from modeling_slam.study.cost import estimate
from modeling_slam.study.runner import train_flags
from modeling_slam.training.layer_choice import LAYER_CHOICES

HOURS = "max_train_hours=[1, 2.5, 10]"


def test_hours_of_training_speech_are_an_axis(study_file):
    study = load_study(study_file(), [HOURS])
    assert [spec.name for spec in study.specs] == [
        f"tiny-{depth}L-projector-en-{hours}h-s42" for depth in (3, 1) for hours in ("1", "2.5", "10")
    ]
    for spec, run in zip(study.specs, study.runs, strict=True):
        assert spec.axes == {"max_train_hours": spec.train_flags["max_train_hours"]}
        assert run.data.max_train_hours == spec.axes["max_train_hours"]  # the estimate of cost follows
    assert {spec.axes["max_train_hours"] for spec in study.specs} == {1, 2.5, 10}
    assert study.axes == {"max_train_hours": "hours of training speech"}


def test_a_run_is_told_its_hours_and_the_index_has_them(study_file, stand_ins, tmp_path):
    run_study(load_study(study_file(), ["max_train_hours=[1, 5]"]), tmp_path / "out")
    log = (tmp_path / "out" / "runs" / "tiny-1L-projector-en-5h-s42" / "log.txt").read_text()
    assert "--max_train_hours 5" in log.splitlines()[0]
    index = pd.read_parquet(tmp_path / "out" / "index.parquet")
    assert sorted(index["max_train_hours"]) == [1, 1, 5, 5]
    results = StudyResults.load(tmp_path / "out")
    assert results.axes == {"max_train_hours": "hours of training speech"}
    assert results.runs["max_train_hours"].tolist() == [1, 5, 1, 5]


def test_a_value_is_what_train_py_reads_of_it(study_file):
    (spec, _) = load_study(study_file(), ["max_train_hours=[5e-1]"]).specs  # a word to YAML
    assert spec.name == "tiny-3L-projector-en-0.5h-s42"
    assert spec.axes == {"max_train_hours": 0.5}


def test_a_study_without_further_axes_keeps_its_names_and_its_recipes_hours(study_file, world, tmp_path):
    (tmp_path / "recipe.yaml").write_text("max_train_hours: 3\n")
    path = study_file(recipe=str(tmp_path / "recipe.yaml"))
    plain = load_study(path)
    assert [spec.name for spec in plain.specs] == ["tiny-3L-projector-en-s42", "tiny-1L-projector-en-s42"]
    assert {spec.train_flags["max_train_hours"] for spec in plain.specs} == {3}
    spanned = load_study(path, ["max_train_hours=[1]"])  # an axis replaces what the recipe says of it
    assert {spec.train_flags["max_train_hours"] for spec in spanned.specs} == {1}


def test_the_llm_is_an_axis_where_it_has_names(study_file, world):
    path = study_file(llm={"big": str(world.llm), "small": str(world.llm)})
    study = load_study(path, ["encoders.tiny.keep_layers=[3]"])
    assert {spec.name: spec.llm for spec in study.specs} == {
        "tiny-3L-big-projector-en-s42": str(world.llm), "tiny-3L-small-projector-en-s42": str(world.llm),
    }  # fmt: skip
    assert [spec.axes for spec in study.specs] == [{"llm": "big"}, {"llm": "small"}]
    assert study.axes == {"llm": "LLM"}
    (one, _) = load_study(path, [f"llm={world.llm}"]).specs  # one LLM is no axis
    assert (one.name, one.llm, one.axes) == ("tiny-3L-projector-en-s42", str(world.llm), {})
    with pytest.raises(ValueError, match=r"llm\.small must be a Hub id or a directory, got 2"):
        load_study(path, ["llm.small=2"])
    with pytest.raises(ValueError, match="`llm` must name at least one"):
        load_study(path, ["llm={}"])


def test_projectors_and_layer_choices_are_axes(study_file, monkeypatch):
    monkeypatch.setitem(LAYER_CHOICES, "evenly", LAYER_CHOICES["top_down"])
    train = {"max_steps": 30, "use_cpu": True, "eval_strategy": "no"}
    path = study_file(train=train)
    changes = ["encoders.tiny.keep_layers=[3]", "layer_choice=[top_down, evenly]", "projector_stack=[2, 4]"]
    study = load_study(path, changes)
    assert [spec.name for spec in study.specs] == [
        f"tiny-3L-{choice}-projector-stack{stack}-en-s42"
        for choice in ("top_down", "evenly")
        for stack in (2, 4)
    ]
    assert [run.config.projector_stack for run in study.runs] == [2, 4, 2, 4]
    assert [spec.train_flags["layer_choice"] for spec in study.specs][1:3] == ["top_down", "evenly"]
    (spec, *_) = load_study(path, ["projector_type=[stack_mlp, conv]"]).specs
    assert spec.name == "tiny-3L-projector-stack_mlp-en-s42"
    with pytest.raises(ValueError, match="invalid choice: 'nearest'"):
        load_study(study_file(), ["layer_choice=[nearest]"])


@pytest.mark.parametrize(
    ("flag", "label", "values"),
    [
        ("learning_rate", "lr{:g}", [0.5, 0.25]), ("lora_dropout", "d{:g}", [0.0, 0.5]),
        ("augment", "{}", ["speed", "edges"]), ("align_epochs", "a{:g}", [0.0, 2.0]),
        ("subset_seed", "u{}", [1, 2]), ("clip_by_part", "clip{}", [True, False]),
    ],
)  # fmt: skip
def test_any_flag_of_train_py_is_an_axis_by_one_row(study_file, monkeypatch, flag, label, values):
    monkeypatch.setitem(AXES, flag, Axis("its title", label))
    monkeypatch.setattr("modeling_slam.study.axes.FURTHER", [*FURTHER, flag])
    for user in ("grid", "study_file"):
        monkeypatch.setattr(f"modeling_slam.study.{user}.FURTHER", [*FURTHER, flag])
    train = {"max_steps": 30, "use_cpu": True, "eval_strategy": "no"}
    path = study_file(train=train | ({} if flag == "align_epochs" else {"align_epochs": 0.0}))
    study = load_study(path, ["encoders.tiny.keep_layers=[3]", f"{flag}={json.dumps(values)}"])
    assert [spec.train_flags[flag] for spec in study.specs] == values
    assert [spec.axes for spec in study.specs] == [{flag: value} for value in values]
    assert study.axes == {flag: "its title"}


VARIANTS = "variant={plain: {}, wide: {projector_stack: 2, learning_rate: 0.5}}"


def test_a_variant_changes_what_recipe_and_study_say(study_file):
    path = study_file(train={**PLAIN, "learning_rate": 0.25, "projector_stack": 3})
    study = load_study(path, [VARIANTS, "encoders.tiny.keep_layers=[3]"])
    flags = {spec.name: spec.train_flags for spec in study.specs}
    assert list(flags) == ["tiny-3L-projector-en-plain-s42", "tiny-3L-projector-en-wide-s42"]
    plain, wide = flags.values()
    assert (plain["projector_stack"], plain["learning_rate"]) == (3, 0.25)
    assert (wide["projector_stack"], wide["learning_rate"]) == (2, 0.5)
    assert [run.config.projector_stack for run in study.runs] == [3, 2]
    assert [spec.axes for spec in study.specs] == [{"variant": "plain"}, {"variant": "wide"}]


def test_the_depth_of_the_llm_is_an_axis_and_its_cost_follows(study_file):
    study = load_study(study_file(), ["keep_llm_layers=[2, 1]", "encoders.tiny.keep_layers=[3]"])
    names = ["tiny-3L-llm2-projector-en-s42", "tiny-3L-llm1-projector-en-s42"]
    assert [spec.name for spec in study.specs] == names
    assert [run.config.kept_llm_layers for run in study.runs] == [[0, 1], [0]]
    assert [train_flags(spec, Path("model"))["keep_llm_layers"] for spec in study.specs] == [2, 1]
    whole, half = (parameter_counts(run.config) for run in study.runs)
    assert (whole.llm - whole.llm_embeddings - 64) == 2 * (half.llm - half.llm_embeddings - 64)  # final norm
    with pytest.raises(ValueError, match=r"tiny-3L-llm3.*`--keep_llm_layers`.*between 1 and 2"):
        load_study(study_file(), ["keep_llm_layers=[3]", "encoders.tiny.keep_layers=[3]"])


def test_lora_of_the_encoder_is_an_axis_and_its_cost_follows(study_file):
    changes = ["encoder_lora_rank=[0, 2]", "encoders.tiny.keep_layers=[3]"]
    changes += ["datasets.en.size={train_hours: 1, train_clips: 1000, test_hours: 1, test_clips: 1000}"]
    study = load_study(study_file(), changes)
    assert [spec.name for spec in study.specs] == [f"tiny-3L-projector-e{rank}-en-s42" for rank in (0, 2)]
    assert [run.config.encoder_lora_rank for run in study.runs] == [0, 2]
    frozen, adapted = (estimate(run) for run in study.runs)
    assert adapted.counts.lora == adapted.counts.encoder_lora > frozen.counts.lora == 0
    assert adapted.flops > frozen.flops
    assert adapted.model_bytes - frozen.model_bytes == 4 * adapted.counts.encoder_lora


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["variant={deep: {keep_layers: 2}}"], "`variant` deep sets keep_layers, which the study itself"),
        (["variant={wide: {projector_stacks: 2}}"], "unrecognized arguments: --projector_stacks"),
        (["variant={}"], "`variant` must name at least one"),
        (["variant=[wide]"], "`variant` must be names, each with the flags that it changes; got ['wide']"),
        (["variant={wide: 2}"], "`variant` must be names, each with the flags that it changes"),
        (["max_train_hours=5"], "`max_train_hours` must name at least one, each once; got 5"),
        (["max_train_hours=[]"], "`max_train_hours` must name at least one"),
        (["max_train_hours=[1, null]"], "`max_train_hours` must name at least one"),
        (["max_train_hours=[1, 1]"], "`max_train_hours` must name at least one, each once"),
        (["max_train_hours=[1, 1.0000001]"], "Two runs would be called tiny-1L-projector-en-1h-s42"),
        (["max_train_hours=[many]"], "invalid float value: 'many'"),
        (["max_train_hours=[0]"], "`max_train_hours` must be above 0"),
        (["max_train_hour=[1]"], "there is no setting `max_train_hour`. Did you mean `max_train_hours`?"),
        (["axes={}"], "there is no setting `axes`"),
        ([HOURS, "train.max_train_hours=3"], "sets max_train_hours, which the study itself gives"),
    ],
)
def test_what_is_wrong_with_an_axis_is_named(study_file, changes, message):
    with pytest.raises(ValueError) as raised:  # noqa: PT011 (the message is compared below)
        load_study(study_file(), changes)
    assert message in str(raised.value)


def test_every_axis_says_what_it_is():
    assert all(axis.title and "{" in axis.label for axis in AXES.values())
    assert set(FURTHER) < set(AXES)
