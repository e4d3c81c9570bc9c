"""`eval.py` end to end: files, scores, resume, refusals. In two processes: `training/test_distributed.py`."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jiwer
import pytest

import eval as eval_script

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def command(checkpoint, speech_folder, tmp_path) -> list[str]:
    return [
        "--model", str(checkpoint), "--dataset", str(speech_folder), "--language", "nl",
        "--output_dir", str(tmp_path / "results"), "--max_new_tokens", "6", "--batch_size", "2",
        "--num_workers", "0",
    ]  # fmt: skip


@pytest.fixture
def results(tmp_path) -> Path:
    return tmp_path / "results"


def read(results: Path) -> tuple[list[dict], dict]:
    lines = (results / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines], json.loads(
        (results / "metrics.json").read_text(encoding="utf-8")
    )


def test_scores_follow_from_the_predictions_and_name_model_data_and_versions(
    command, results, tiny_model, capsys
):
    eval_script.main(command)
    rows, metrics = read(results)
    assert [row["index"] for row in rows] == [0, 1, 2, 3, 4]
    assert metrics["wer"] == jiwer.wer(
        [row["reference"] for row in rows], [row["prediction"] for row in rows]
    )
    assert metrics["cer"] == jiwer.cer(
        [row["reference"] for row in rows], [row["prediction"] for row in rows]
    )
    assert metrics["wer_interval"][0] <= metrics["wer"] <= metrics["wer_interval"][1]
    assert metrics["utterances"] == 5
    assert metrics["real_time_factor"] == pytest.approx(
        sum(row["seconds"] for row in rows) / sum(row["duration"] for row in rows)
    )
    assert metrics["parameters"] == tiny_model.parameter_counts()
    assert metrics["settings"]["num_beams"] == 2
    assert metrics["data"]["kept_clips"] == 5
    assert metrics["versions"]["jiwer"].startswith("4.")
    assert f"WER  {100 * metrics['wer']:.2f} %" in capsys.readouterr().out
    assert sorted(path.name for path in results.iterdir()) == [
        "data_test.json", "metrics.json", "predictions.jsonl", "predictions.settings.json",
    ]  # fmt: skip


def test_the_ten_lines_of_the_documentation_recompute_the_reported_wer(command, results):
    eval_script.main(command)
    page = (REPOSITORY / "docs" / "evaluation.md").read_text(encoding="utf-8")
    script = page.split("## Check us")[1].split("```python\n")[1].split("```")[0]
    assert len(list(filter(None, script.splitlines()))) == 10  # the formatter adds a blank one
    output = subprocess.run(
        [sys.executable, "-c", script, results], capture_output=True, text=True, check=True
    )
    recomputed, reported = map(float, output.stdout.split())
    assert recomputed == reported == read(results)[1]["wer"]


def test_a_finished_run_is_scored_again_without_decoding_and_gives_the_same(command, results):
    eval_script.main(command)
    before = read(results)
    eval_script.main([*command, "--batch_size", "4"])
    rows, metrics = read(results)
    assert rows == before[0]
    assert metrics["decode_seconds"] == before[1]["decode_seconds"]


def test_several_datasets_are_one_test_set_and_one_is_recorded_by_its_name_alone(command, results):
    speech = command[command.index("--dataset") + 1]
    eval_script.main(command)
    assert read(results)[1]["settings"]["dataset"] == speech
    other = shutil.copytree(speech, Path(speech).with_name("more"))
    both = ["--dataset", speech, str(other), "--output_dir", str(results / "both")]
    for _ in range(2):  # the second time it is scored again, by the same settings
        eval_script.main([*command, *both])
    rows, metrics = read(results / "both")
    assert [row["id"] for row in rows] == [
        f"{name}/{number}.wav" for name in ("speech", "more") for number in range(5)
    ]
    assert metrics["settings"]["dataset"] == [speech, str(other)]
    assert [part["kept_clips"] for part in metrics["data"]["parts"]] == [5, 5]


def test_other_settings_in_the_same_directory_are_refused_and_nothing_is_overwritten(command, results):
    eval_script.main(command)
    before = (results / "metrics.json").read_bytes()
    with pytest.raises(SystemExit, match="num_beams was 2, is 1"):
        eval_script.main([*command, "--num_beams", "1"])
    assert (results / "metrics.json").read_bytes() == before


def test_the_advice_for_a_damaged_line_helps(command, results, capsys):
    eval_script.main(command)
    before = read(results)
    file = results / "predictions.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join([*lines[:2], lines[2].replace('"index": 2', '"index": null'), *lines[3:]]))
    with pytest.raises(
        SystemExit, match=r"^error: .*predictions\.jsonl, line 3: `index`.* Delete that line and"
    ):
        eval_script.main(command)
    file.write_text("".join([*lines[:2], *lines[3:]]), encoding="utf-8")
    dataset = command.index("--dataset") + 1
    eval_script.main([*command[:dataset], command[dataset] + "/", *command[dataset + 1 :]])
    rows, metrics = read(results)
    assert [row["prediction"] for row in rows] == [row["prediction"] for row in before[0]]
    assert metrics["wer"] == before[1]["wer"]


def test_a_dataset_without_usable_clips_is_refused_with_the_reasons(command, results):
    with pytest.raises(SystemExit, match=r"(?s)No clip is left.*dropped 5"):
        eval_script.main([*command, "--min_seconds", "20"])
    assert [path.name for path in results.iterdir()] == ["data_test.json"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num_beams", "0"], "`num_beams` must be at least 1"),
        (["--split", "dev"], "invalid choice: 'dev'"),
        (["--suppress_numerals"], "belongs to `--baseline whisper`"),
        (["--beams", "4"], "unrecognized arguments"),
    ],
)
def test_bad_flags_end_with_one_clear_line(command, flags, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        eval_script.main([*command, *flags])
    assert message in capsys.readouterr().err


def test_a_corpus_that_mostly_cannot_be_read_is_not_evaluated_and_leaves_its_report(
    command, results, speech_folder
):
    with (speech_folder / "test" / "metadata.csv").open("a") as table:
        table.writelines(f"gone{number}.wav,weg\n" for number in range(11))
    with pytest.raises(SystemExit, match="The audio of 11 of 16 clips cannot be read"):
        eval_script.main(command)
    assert [path.name for path in results.iterdir()] == ["data_test.json"]
    assert json.loads((results / "data_test.json").read_text())["reasons"] == {"missing file": 11}
    eval_script.main([*command, "--max_dropped", "1"])
    assert read(results)[1]["utterances"] == 5


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_without_the_letters_of_the_transcripts_ends_no_evaluation(
    checkpoint, write_speech, tmp_path, results, monkeypatch, encoding
):
    speech = write_speech(tmp_path / "små", ["Små grønne æbler", "Ørsted, 東京"], [1.0, 0.8])
    printed = io.BytesIO()
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, io.TextIOWrapper(printed, encoding=encoding, write_through=True))
    eval_script.main(
        ["--model", str(checkpoint), "--dataset", str(speech), "--language", "da", "--output_dir",
         str(results), "--max_new_tokens", "4", "--num_workers", "0"]
    )  # fmt: skip
    rows, _ = read(results)
    assert [row["reference"] for row in rows] == ["små grønne æbler", "ørsted 東京"]
    text = printed.getvalue().decode(encoding)
    assert ("æbler" if encoding != "ascii" else r"\xe6bler") in text
    assert ("東京" if encoding == "utf-8" else r"\u6771\u4eac") in text


@pytest.mark.parametrize(("stack", "tail", "shortest"), [(45, "drop", 0.9), (60, "drop", 1.2)])
def test_a_clip_too_short_is_found_before_the_first_is_decoded(
    command, results, checkpoint, tiny_processor, stack, tail, shortest
):
    """Clips are decoded from the longest to the shortest, so it would show at the end."""
    tiny_processor.projector_stack, tiny_processor.projector_tail = stack, tail
    tiny_processor.save_pretrained(checkpoint)
    with pytest.raises(SystemExit, match=rf"The shortest clip lasts 0\.700 s .*`--min_seconds {shortest}`"):
        eval_script.main(command)
    assert [path.name for path in results.iterdir()] == ["data_test.json"]
