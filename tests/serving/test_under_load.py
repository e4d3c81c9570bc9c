"""The server under load, as `python -m benchmarks.serve` measures it, for seconds and with a tiny model."""

import json

import pytest

from benchmarks.serve import main


@pytest.mark.nightly
def test_32_clients_get_no_error_and_the_texts_of_one_alone(checkpoint_with_head, sounds, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for name, sound in sounds.items():
        (folder / f"{name}.wav").write_bytes(sound)
    out = tmp_path / "figures.json"
    main(["--model", str(checkpoint_with_head), "--recordings", str(folder), "--seconds", "10",
          "--alone_seconds", "5", "--out", str(out)])  # fmt: skip
    figures = json.loads(out.read_text(encoding="utf-8"))
    alone, crowd = figures["parts"]
    assert alone["errors"] == crowd["errors"] == {}
    assert (figures["compared_recordings"], figures["differing_recordings"]) == (3, 0)
    assert crowd["chunks_per_batch"] > 2 * alone["chunks_per_batch"]
    assert figures["exit_code"] == 0
    assert "| 32 | " in capsys.readouterr().out
