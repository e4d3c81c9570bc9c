"""The card: metadata that the Hub accepts, and no number that metrics.json or the run does not hold."""

import copy
import json
import re
from pathlib import Path

import pytest
import yaml
from fake_hub import FakeHub
from hub_card_rules import check_card
from huggingface_hub import ModelCard, constants
from huggingface_hub.repocard import metadata_load

from modeling_slam.evaluation.metrics import ERROR_RATES, METRICS
from modeling_slam.publishing import card
from modeling_slam.publishing.card import eval_results_file, render_card, template_path
from modeling_slam.publishing.check import CheckResult
from modeling_slam.publishing.evidence import Evidence, Result, gather, load_results
from modeling_slam.publishing.release import read_config

REPO = "org/slam-d32-3L-lora-en"
RATES = [name for name in ERROR_RATES if not METRICS[name].needs_written]  # of a model of normalised text


@pytest.fixture
def evidence(trained) -> Evidence:
    """All that is known about the trained model; the counts are those that eval.py wrote."""
    config = read_config(trained.run)
    found = gather(trained.run, config, [str(trained.results)], trained.metrics["parameters"])
    found.check = CheckResult(["a"], ["a"], 1.5e-6, "float32", trained.metrics["parameters"], "generated")
    return found


@pytest.fixture
def baseline(trained, tmp_path) -> Path:
    """A metrics.json as `eval.py --baseline whisper` writes it, with scores of its own."""
    metrics = copy.deepcopy(trained.metrics)
    metrics["settings"] |= {"baseline": "whisper", "model": "tiny/whisper", "suppress_numerals": False}
    metrics |= {"wer": 0.4321, "wer_interval": [0.4, 0.4765], "cer": 0.2109, "insertions": 3}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    return tmp_path


def table(text: str, first_cell: str) -> list[str]:
    """The cells of the row that begins so."""
    (row,) = [line for line in text.splitlines() if line.startswith(f"| {first_cell} |")]
    return [cell.strip() for cell in row.strip("|").split("|")]


@pytest.mark.parametrize(
    ("kept", "words"),
    [([0, 1, 2], "0 to 2"), ([0, 2], "0, 2"), ([0], "0"), ([0, [1, 2]], "0, mean of 1 and 2")],
)
def test_kept_layers_are_named_merged_ones_by_what_they_are_the_mean_of(kept, words):
    assert card.layer_words(kept) == words


def percent(rate: float) -> str:
    return f"{100 * rate:.2f} %"


def test_the_hub_accepts_the_metadata_and_huggingface_hub_reads_it_back(evidence, tmp_path, monkeypatch):
    card = render_card(evidence, REPO, license="apache-2.0", revision="v1.0")
    card.save(tmp_path / "README.md")
    errors, warnings = check_card((tmp_path / "README.md").read_text(encoding="utf-8"))
    assert (errors, warnings) == ([], [])
    with FakeHub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        ModelCard.load(tmp_path / "README.md").validate()  # the real client, over HTTP
        assert hub.count("POST", "/api/validate-yaml") == 1
    data = metadata_load(tmp_path / "README.md")
    assert data["library_name"] == "transformers"
    assert data["pipeline_tag"] == "automatic-speech-recognition"
    assert data["base_model"] == ["tiny/whisper", "tiny/qwen2"]
    assert data["base_model_relation"] == "adapter"
    assert (data["language"], data["license"], data["metrics"]) == ("en", "apache-2.0", RATES)
    assert "datasets" not in data  # a folder of this machine is no dataset of the Hub


def test_a_full_checkpoint_trained_on_directories_names_base_models_and_data_as_told(evidence, trained):
    evidence.config.audio_model_id = evidence.config.text_model_id = str(trained.run)
    named = {"datasets": ["owner/speech"], "base_models": ["openai/whisper-tiny", "Qwen/Qwen2.5-0.5B"]}
    text = str(render_card(evidence, REPO, full=True, **named))
    assert check_card(text)[0] == []
    data = ModelCard(text).data
    assert (data.base_model, data.datasets) == (named["base_models"], named["datasets"])
    assert data.base_model_relation == "finetune"
    assert "come from openai/whisper-tiny and Qwen/Qwen2.5-0.5B." in text
    assert str(trained.run.parent) not in text
    assert "base_model" not in str(render_card(evidence, REPO, full=True))


COMMITTED = sorted(set(Path(__file__).parents[2].glob("model_cards/*.md")))


@pytest.mark.parametrize(
    "path", [path for path in COMMITTED if path.name != "README.md"], ids=lambda p: p.stem
)
def test_the_cards_in_this_repository_are_valid_and_tell_nothing_of_a_machine(path, tmp_path, monkeypatch):
    text = path.read_text(encoding="utf-8")
    assert check_card(text) == ([], [])
    with FakeHub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        ModelCard.load(path).validate()
    metrics = {result.metric_type: result.metric_value for result in ModelCard(text).data.eval_results}
    row = table(text, "this model")
    assert (row[1], row[3]) == (f"{metrics['wer']:.2f} %", f"{metrics['cer']:.2f} %")
    assert "with its own decoder" in text
    assert not re.search(r"(?<![\w.:/])(/[a-z]\w+/|~/|[A-Z]:\\)", text.split("## Citation")[0])


def test_what_the_ctc_head_reads_is_a_row_beside_the_model_and_never_its_result(evidence, trained, tmp_path):
    control = copy.deepcopy(trained.metrics)
    control["settings"]["decoder"] = "ctc"
    control["wer"] = 0.4321
    (tmp_path / "metrics.json").write_text(json.dumps(control))
    evidence.results = load_results(
        [str(tmp_path), str(trained.results)], trained.metrics["settings"]["checkpoint"]
    )
    text = str(render_card(evidence, REPO))
    assert table(text, "its CTC head alone, without the LLM")[1] == "43.21 %"
    indexed = {result.metric_type: result.metric_value for result in ModelCard(text).data.eval_results}
    assert indexed["wer"] == round(100 * trained.metrics["wer"], 2)


def test_a_figure_of_the_joint_score_says_so(evidence):
    evidence.results[0].metrics["settings"]["ctc_weight"] = 0.3
    metrics = evidence.results[0].metrics
    text = str(render_card(evidence, REPO))
    assert table(text, "this model with `ctc_weight=0.3`")[1] == f"{100 * metrics['wer']:.2f} %"
    metrics["data"] |= {"source": "owner/benchmark", "kind": "datasets"}
    (entry,) = yaml.safe_load(eval_results_file(evidence, "asr"))
    assert entry["notes"].endswith("beams with `ctc_weight=0.3`")


def test_a_mixed_model_is_of_its_languages_with_a_row_for_each(evidence):
    evidence.run["data"]["language"] = ["en", "nl", "en"]
    evidence.instruction = "Write {language}:\n"
    metrics = evidence.results[0].metrics
    metrics["settings"]["language"] = ["en", "nl", "en"]
    metrics |= {
        "by_dataset": {"queen": metrics | {"wer": 0.1234}, "talk|nl": metrics},
        "by_language": {"nl": metrics | {"wer": 0.4321}},
    }
    text = str(render_card(evidence, "org/mixed"))
    assert check_card(text)[0] == []
    assert ModelCard(text).data.language == ["en", "nl"]
    assert table(text, "queen")[1] == "12.34 %"
    assert table(text, "language nl")[1] == "43.21 %"
    assert 'processor("clip.wav", language="en")' in text
    assert "split test, language en, nl:" in text


def test_every_number_of_the_results_is_that_of_metrics_json(evidence, trained, baseline, tmp_path):
    evidence.results = load_results(
        [str(baseline), str(trained.results)], trained.metrics["settings"]["checkpoint"]
    )
    text = str(render_card(evidence, REPO))
    reference = json.loads((baseline / "metrics.json").read_text())
    for label, metrics in (("this model", trained.metrics), ("tiny/whisper with its own decoder", reference)):
        low, high = metrics["wer_interval"]
        errors = [str(metrics[name]) for name in ("substitutions", "deletions", "insertions")]
        assert table(text, label)[1:] == [
            percent(metrics["wer"]), f"{percent(low)} to {percent(high)}",
            *(percent(metrics[name]) for name in RATES[1:]),
            " / ".join(errors), percent(metrics["insertions"] / metrics["reference_words"]),
            percent(metrics["empty_predictions"] / metrics["utterances"]),
            percent(metrics["truncated_predictions"] / metrics["utterances"]),
            percent(metrics["repetition_loops"] / metrics["utterances"]),
            str(metrics["settings"]["num_beams"]),
        ]  # fmt: skip
    metrics = trained.metrics
    assert f"{metrics['utterances']:,} clips, {metrics['reference_words']:,} words" in text
    assert f"batches of {metrics['batch_mean_size']}" in text
    assert f"is {percent(metrics['batch_mean_wer'])}" in text
    assert f"Decoding took {metrics['real_time_factor']:.3f} s" in text
    indexed = {result.metric_type: result.metric_value for result in ModelCard(text).data.eval_results}
    assert indexed == {name: round(100 * metrics[name], 2) for name in RATES}


def test_parameters_and_recipe_are_those_of_the_model_and_the_run(evidence, trained):
    text = str(render_card(evidence, REPO))
    counts = trained.metrics["parameters"]
    rows = {
        "encoder, kept": "encoder_kept",
        "encoder, removed": "encoder_removed",
        "LLM": "llm",
        "LoRA": "lora",
    }
    for label, name in rows.items():
        assert table(text, label)[1] == f"{counts[name]:,}"
    run = json.loads((trained.run / "run.json").read_text(encoding="utf-8"))["run"]
    for name in ("learning_rate", "weight_decay", "max_steps", "per_device_train_batch_size", "seed"):
        assert table(text, name)[1] == str(run[name])
    report = json.loads((trained.run / "data_train.json").read_text(encoding="utf-8"))
    assert f"- train: speech, split train, language en: {report['kept_clips']} clips" in text
    assert str(trained.run.parent) not in text


def test_the_card_says_which_layers_of_the_llm_are_kept(evidence):
    assert "without" not in str(render_card(evidence, REPO)).partition("causal LM")[2].partition("\n")[0]
    evidence.config.kept_llm_layers = [1]
    evidence.parameters = evidence.parameters | {"llm_removed": 1234}
    text = str(render_card(evidence, REPO))
    assert "a frozen causal LM without 1 of its 2 layers with LoRA" in text
    assert table(text, "LLM, kept")[1:] == [f"{evidence.parameters['llm']:,}", "layers 1 of 2, frozen"]
    assert table(text, "LLM, removed")[1:] == ["1,234", "not loaded"]
    assert table(text, "LoRA")
    evidence.config.update({"lora_rank": 0, "train_llm": True})
    text = str(render_card(evidence, REPO))
    assert "a trained causal LM without 1 of its 2 layers that writes" in text
    assert table(text, "LLM, kept")[2] == "layers 1 of 2, trained"
    assert table(text, "LoRA")[1:] == ["0", "none"]


def test_each_of_several_datasets_is_named_and_none_by_its_directory(evidence, trained):
    part = {**evidence.data["train"], "kept_clips": 7, "source": "owner/speech", "kind": "datasets"}
    parts = [part, {**part, "kept_clips": 9, "source": "/somewhere/mine", "kind": "AudioFolder"}]
    evidence.data["train"] |= {
        "source": "owner/speech + /somewhere/mine",
        "kind": "2 datasets",
        "parts": parts,
    }
    metrics = copy.deepcopy(trained.metrics)
    metrics["data"] |= evidence.data["train"]
    evidence.results = [Result(metrics)]
    card = render_card(evidence, REPO)
    assert "- train: owner/speech + mine, split train" in card.text
    assert "\n  - owner/speech: 7 clips" in card.text
    assert "\n  - mine: 9 clips" in card.text
    assert "/somewhere" not in str(card)
    assert card.data.datasets == ["owner/speech"]
    assert card.data.eval_results[0].dataset_name == "owner/speech + mine"
    with pytest.raises(ValueError, match="one benchmark dataset of the Hub"):
        eval_results_file(evidence, "asr")


def test_without_results_the_card_says_so_and_holds_no_rate(evidence):
    evidence.results, evidence.validation, evidence.check = [], None, None
    text = str(render_card(evidence, REPO))
    assert "has not been evaluated on a test set" in text
    assert "Batch invariance has not been checked" in text
    assert not re.search(r"\d %", text.replace("95 %", ""))
    assert "model-index" not in text
    assert "metrics" not in ModelCard(text).data.to_dict()


def test_a_bare_checkpoint_claims_no_data_and_no_recipe(evidence):
    bare = Evidence(evidence.config, evidence.parameters)
    text = str(render_card(bare, REPO))
    assert "What it was trained on is not recorded" in text
    assert "The settings of the training run are not recorded" in text
    assert check_card(text)[0] == []


def test_a_batch_that_changes_a_transcript_is_told(evidence):
    counts = evidence.parameters
    evidence.check = CheckResult(["a"], ["b"], 0.5, "float32", counts, "clip.wav")
    assert "the transcripts are NOT equal, the first token's logits differ by at most 5.0e-01" in str(
        render_card(evidence, REPO)
    )


def test_results_of_another_checkpoint_are_refused(trained, baseline):
    with pytest.raises(ValueError, match="was measured on another checkpoint"):
        load_results([str(trained.results)], "0123456789abcdef")
    metrics = json.loads((baseline / "metrics.json").read_text())
    metrics["settings"]["content"] = "other clips"
    (baseline / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(ValueError, match="decoded on other clips"):
        load_results([str(baseline), str(trained.results)], trained.metrics["settings"]["checkpoint"])
    with pytest.raises(ValueError, match=r"There is no metrics\.json"):
        load_results([str(baseline / "nowhere")], "")


def test_eval_results_are_written_for_a_dataset_of_the_hub_alone(evidence, trained):
    with pytest.raises(ValueError, match="one benchmark dataset of the Hub"):
        eval_results_file(evidence, "asr")
    metrics = copy.deepcopy(trained.metrics)
    metrics["data"] |= {"source": "owner/benchmark", "kind": "datasets"}
    evidence.results = [Result(metrics)]
    (entry,) = yaml.safe_load(eval_results_file(evidence, "asr"))
    assert entry["dataset"] == {"id": "owner/benchmark", "task_id": "asr"}
    assert entry["value"] == round(100 * metrics["wer"], 2)


def test_the_template_is_a_file_of_the_package():
    assert template_path().is_file()
    assert template_path().parent == Path(card.__file__).parent


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("language: Dutch", "ISO 639"),
        ("license: free", '"license" must be one of'),
        ("base_model: /home/me/whisper", '"base_model[0]" with value'),
        ("datasets: [null]", '"datasets[0]" with value'),
        ("model-index: [{name: x, results: [{task: {type: asr}}]}]", "dataset.type"),
        ("tags: [1]", "array of strings"),
        ("a: [", "Invalid YAML"),
    ],
)
def test_the_rules_that_judge_the_card_do_refuse(metadata, message):
    errors, _ = check_card(f"---\n{metadata}\n---\n")
    assert any(message in error for error in errors)


def test_what_is_trained_of_encoder_and_llm_stands_in_rows_of_their_own(evidence):
    whole = evidence.parameters["lora"]
    assert table(str(render_card(evidence, REPO)), "LLM")[2] == "frozen"
    evidence.config.encoder_lora_rank = 2
    evidence.parameters |= {"lora": whole + 320, "encoder_lora": 320}
    text = str(render_card(evidence, REPO))
    assert table(text, "LoRA")[1] == f"{whole:,}"
    assert table(text, "LoRA of the encoder")[1:] == ["320", "trained: rank 2, alpha 32, on q_proj, v_proj"]
    assert "3 layers + LoRA ─► projector ─► LLM + LoRA" in text
    assert "encoder and LLM frozen" not in text

    evidence.config.update({"encoder_lora_rank": 0, "lora_rank": 0, "train_llm": True})
    evidence.config.trained_encoder_layers = [1, 2, 3]
    evidence.parameters |= {"encoder_trained": 12345, "llm_trained": evidence.parameters["llm"]}
    text = str(render_card(evidence, REPO))
    assert table(text, "LLM")[2] == "trained"
    assert table(text, "encoder, kept")[2] == "layers 0 to 2 of 4, 12,345 trained: layers 1 to 2"
    assert table(text, "LoRA")[1:] == ["0", "none"]
    assert ModelCard(text).data.base_model_relation == "finetune"


def test_scores_that_an_older_evaluation_did_not_have_are_left_out(evidence):
    for result in evidence.results:
        for name in ("ser", "ser_interval", "truncated_predictions"):
            result.metrics.pop(name)
    text = str(render_card(evidence, REPO))
    assert "SER" not in text
    assert ModelCard(text).data.metrics == [name for name in RATES if name != "ser"]


def test_a_model_of_written_text_says_so_and_shows_both_rates(evidence):
    plain = str(render_card(evidence, REPO))
    assert "lower case, without punctuation" in plain
    assert "WER as written" not in plain
    assert f"Whisper's rules: {evidence.results[0].metrics['whisper_rules']}." in plain
    evidence.config.text_style = "written"
    for result in evidence.results:
        result.metrics.update(written_wer=0.4567, written_wer_interval=[0.4, 0.5])
    written = str(render_card(evidence, REPO))
    assert "Text comes in the form of the training targets: with case and punctuation." in written
    assert "Loss on the tokens of the transcript only, with its case and punctuation;" in written
    assert "45.67 %" in table(written, "this model")


def test_figures_by_different_lists_of_spellings_are_not_put_side_by_side(evidence):
    (result,) = evidence.results
    result.baselines.append(copy.deepcopy(result.metrics) | {"whisper_rules": "another"})
    text = str(render_card(evidence, REPO))
    assert "| WER by Whisper's rules |" not in text
    (named,) = [r.metric_name for r in ModelCard(text).data.eval_results if r.metric_type == "whisper_wer"]
    assert named == f"Test WER by Whisper's rules ({result.metrics['whisper_rules']})"
