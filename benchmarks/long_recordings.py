"""Long recordings through `slam-asr transcribe`, beside the clips that they are made of, one by one.

    python -m benchmarks.long_recordings --model RUN --dataset DIR... [--minutes 3 30] [--out FILE.json]

Makes a folder as people have them: recordings of so many minutes, of test clips in a drawn order with pauses
of 0.2 to 0.8 s; the first minute of the shortest as .m4a and as .mp4 with a picture; one that is cut in half;
and five silent seconds. Transcribes it by the command, and the clips themselves by another call. Other flags
are the command's, such as `--num_beams 1`; `--command` is that of another installation, such as a wheel's.
DIR are AudioFolders, of which the test split is taken.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import jiwer
import numpy as np
import soundfile

from benchmarks.ctc_head import SEED, Clip, clips_of, long_recording
from modeling_slam.common.files import write_json
from modeling_slam.data import normalize_text
from modeling_slam.model.audio_lengths import SAMPLING_RATE

SHORT_SECONDS = 60  # of the recordings in other containers
SILENT_SECONDS = 5


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="checkpoint directory or Hub id")
    parser.add_argument("--dataset", required=True, nargs="+", help="AudioFolders with a test split")
    parser.add_argument("--language", default="en", help="that of the speech")
    parser.add_argument("--minutes", type=float, nargs="+", default=[3.0, 30.0], help="of each recording")
    parser.add_argument("--command", default=f"{sys.executable} -m slam_asr", help="what transcribes")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    asked, flags = parser.parse_known_args(argv)
    clips = [clip for directory in asked.dataset for clip in clips_of(directory)]
    references = [normalize_text(text, asked.language) for _, text in clips]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        drawn = make_folder(folder / "recordings", clips, asked.minutes)
        needed = sorted({place for order in drawn.values() for place in order})
        (folder / "clips").mkdir()
        for place in needed:
            soundfile.write(folder / f"clips/{place}.wav", clips[place][0], SAMPLING_RATE)
        command = [*asked.command.split(), "transcribe", asked.model]
        whole, said = transcribe(command, folder / "recordings", flags)
        single, _ = transcribe(command, folder / "clips", flags)
    rows = []
    for name, order in drawn.items():
        spoken = [references[place] for place in order]
        read = [single[str(place)]["text"] for place in order]
        rows.append(
            {
                "recording": name,
                "clips": len(order),
                "seconds": whole[name]["seconds"],
                "wer": jiwer.wer(" ".join(spoken), whole[name]["text"]),
                "wer_clip_by_clip": jiwer.wer(spoken, read),
            }
        )
    shortest = whole[f"{min(asked.minutes):g}-minutes"]["text"].split()
    others = {}
    for name in ("m4a", "mp4"):
        words = whole[name]["text"].split()
        others[name] = jiwer.wer(" ".join(shortest[: len(words)]), " ".join(words))
    figures = {
        "recordings": rows,
        "wer_of_containers_beside_wav": others,
        "silent": whole["silent"]["text"],
        "last_lines": said,
    }
    print(as_table(figures))
    if asked.out:
        write_json(asked.out, figures)


def make_folder(folder: Path, clips: Sequence[Clip], all_minutes: Sequence[float]) -> dict[str, list[int]]:
    """The recordings; of those of so many minutes the places of their clips, by their names."""
    folder.mkdir()
    recordings, orders = {}, {}
    for minutes in all_minutes:
        name = f"{minutes:g}-minutes"
        generator = np.random.default_rng(SEED)
        recordings[name], orders[name] = long_recording(clips, minutes, generator)
        soundfile.write(folder / f"{name}.wav", recordings[name], SAMPLING_RATE)
    minute = min(recordings.values(), key=len)[: SHORT_SECONDS * SAMPLING_RATE]
    encode(folder / "m4a.m4a", minute, picture=False)
    encode(folder / "mp4.mp4", minute, picture=True)
    soundfile.write(folder / "broken.flac", minute, SAMPLING_RATE)
    content = (folder / "broken.flac").read_bytes()
    (folder / "broken.flac").write_bytes(content[: len(content) // 2])
    soundfile.write(folder / "silent.wav", np.zeros(SILENT_SECONDS * SAMPLING_RATE), SAMPLING_RATE)
    return orders


def encode(path: Path, samples: np.ndarray, picture: bool) -> None:
    """Samples as AAC, in a film of one grey picture a second if it is to have one."""
    with av.open(path, "w", format="mp4") as container:
        sound: Any = container.add_stream("aac", rate=SAMPLING_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate = SAMPLING_RATE
        if picture:
            film: Any = container.add_stream("mpeg4", rate=1, width=64, height=64, pix_fmt="yuv420p")
            for _ in range(len(samples) // SAMPLING_RATE):
                container.mux(film.encode(av.VideoFrame(64, 64, "yuv420p")))
            container.mux(film.encode())
        container.mux(sound.encode(frame))
        container.mux(sound.encode())


def transcribe(
    command: list[str], folder: Path, flags: list[str]
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """What it wrote of each recording, by the recording's name, and the last lines that it printed."""
    out = folder.with_name(f"{folder.name}-transcripts")
    done = subprocess.run(
        [*command, str(folder), "--format", "json", "--output_dir", str(out), *flags],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1):  # 1: a recording could not be transcribed
        raise SystemExit(f"error: exit code {done.returncode}: {' '.join(command)}")
    texts = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in out.glob("*.json")}
    return texts, [line for line in done.stdout.splitlines() if line.strip()][-4:]


def as_table(figures: dict[str, Any]) -> str:
    lines = ["| recording | clips | seconds | WER | clip by clip |", "|---|---|---|---|---|"]
    lines += [
        f"| {row['recording']} | {row['clips']} | {row['seconds']:.0f} | {row['wer']:.1%} | "
        f"{row['wer_clip_by_clip']:.1%} |"
        for row in figures["recordings"]
    ]
    for name, wer in figures["wer_of_containers_beside_wav"].items():
        lines.append(f"{name}: {wer:.1%} of the words differ from the .wav's")
    lines += [f"silent: {figures['silent']!r}", *figures["last_lines"]]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
