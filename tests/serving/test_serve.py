"""`slam-asr serve`, asked by OpenAI's own client over loopback: texts, formats, limits, keys, the end."""

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import numpy as np
import openai
import pytest
import torch
from programs import REPOSITORY
from served import KEY, RATE, Running, wav

from modeling_slam.serving.__main__ import main
from modeling_slam.transcription.formats import FORMATS, Transcript


def test_transcripts_and_times_are_those_of_the_pipeline_in_every_format(serve, sounds):
    server = serve()
    for name in ("one", "long"):
        sound = sounds[name]
        expected = server.pipe(sound, return_timestamps="word")
        words = expected["chunks"]
        plain = server.transcribe(sound)
        seconds = plain.usage.seconds
        assert plain.text == expected["text"]
        whole = Transcript(name, seconds, "nl", expected["text"], words)
        assert server.transcribe(sound, response_format="text") == expected["text"] + "\n"
        for written in ("srt", "vtt"):
            assert server.transcribe(sound, response_format=written) == FORMATS[written].write(whole)
        verbose = server.transcribe(
            sound, response_format="verbose_json", timestamp_granularities=["word", "segment"], language="nl"
        )
        table = json.loads(FORMATS["json"].write(whole))
        assert (verbose.text, verbose.language, verbose.duration) == (expected["text"], "nl", seconds)
        assert [(word.word, word.start, word.end) for word in verbose.words] == [
            (word["text"], word["start"], word["end"]) for word in table["words"]
        ]
        assert [(part.text, part.start, part.end, part.id) for part in verbose.segments] == [
            (part["text"], part["start"], part["end"], place) for place, part in enumerate(table["segments"])
        ]
        assert all(math.exp(part.avg_logprob) == pytest.approx(max(part.confidence, 0.001), abs=1e-3)
                   for part in verbose.segments)  # fmt: skip
    assert server.transcribe(sounds["one"], response_format="verbose_json").words is None
    assert len(words) > 1


@pytest.mark.parametrize("cuts", ["in pauses", "with an overlap"])
def test_a_stream_gives_the_text_as_it_grows_and_then_whole(cuts, serve, sounds, request):
    has_head = cuts == "with an overlap"  # the tiny head never tells of a pause
    pipe = request.getfixturevalue("pipe_with_head" if has_head else "pipe_without_head")
    server = serve(pipe, tells_times=has_head)
    for sound in (sounds["one"], sounds["long"]):
        *deltas, done = server.transcribe(sound, stream=True)
        assert {event.type for event in deltas} == {"transcript.text.delta"}
        assert done.type == "transcript.text.done"
        assert done.text == server.pipe(sound)["text"]
        assert "".join(event.delta for event in deltas) == done.text
    assert has_head or len(deltas) > 1


def test_requests_that_wait_are_decoded_together_up_to_the_seconds_of_a_batch(serve, sounds):
    server = serve(batch_seconds=8)
    expected = [server.pipe(sounds[name])["text"] for name in ("one", "other")]
    server.pipe.batches.clear()
    server.pipe.may_go.clear()
    with ThreadPoolExecutor(8) as pool:
        server.pipe.has_begun.clear()
        first = pool.submit(server.transcribe, sounds["one"])
        assert server.pipe.has_begun.wait(30)
        others = [pool.submit(server.transcribe, sounds[name]) for name in ("other", "other", "one", "one")]
        server.wait_for("slam_asr_audio_seconds_waiting", 7)
        server.pipe.may_go.set()
        texts = [future.result().text for future in [first, *others]]
    assert sorted(texts) == sorted([expected[0]] * 3 + [expected[1]] * 2)
    assert sorted(map(len, server.pipe.batches)) == [1, 1, 3]
    for batch in server.pipe.batches:
        assert len(batch) * max(batch) <= 8


def test_a_long_recording_does_not_hold_up_a_short_one(serve, sounds):
    server = serve(batch_seconds=10)
    server.pipe.may_go.clear()
    with ThreadPoolExecutor(2) as pool:
        long = pool.submit(server.transcribe, sounds["long"])
        assert server.pipe.has_begun.wait(30)
        short = pool.submit(server.transcribe, sounds["one"])
        server.wait_for("slam_asr_requests_open", 2)
        server.pipe.may_go.set()
        assert short.result().text
        assert long.result().text
    (number,) = (place for place, batch in enumerate(server.pipe.batches) if min(batch) < 1.3)
    assert number <= 2 < len(server.pipe.batches) - 1


def test_a_full_queue_is_told_to_come_again_and_has_room_afterwards(serve, sounds):
    server = serve(max_requests=2)
    server.pipe.may_go.clear()
    with ThreadPoolExecutor(2) as pool:
        taken = [pool.submit(server.transcribe, sounds["one"]) for _ in range(2)]
        server.wait_for("slam_asr_requests_open", 2)
        with pytest.raises(openai.RateLimitError, match="2 requests wait already") as refused:
            server.transcribe(sounds["one"])
        assert int(refused.value.response.headers["retry-after"]) >= 1
        assert refused.value.body["code"] == "rate_limit_exceeded"
        server.pipe.may_go.set()
        assert taken[0].result().text == taken[1].result().text == server.transcribe(sounds["one"]).text


def states_no_length() -> Iterator[bytes]:
    yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="x.wav"\r\n\r\n'
    yield from [bytes(100_000)] * 20


def test_what_is_too_much_or_takes_too_long_is_refused_by_its_own_code(serve, sounds):
    server = serve(max_megabytes=0.5, max_seconds=20, timeout_seconds=0.7)
    with pytest.raises(openai.APIStatusError, match=r"larger than 0\.5 MB") as refused:
        server.transcribe(bytes(5_000_000))
    assert refused.value.status_code == 413
    url = f"{server.address}/v1/audio/transcriptions"
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    streamed = httpx2.post(url, headers=form, content=states_no_length())
    assert streamed.status_code == 413
    silence = wav(np.zeros(42 * RATE), format="FLAC", subtype="PCM_16")
    with pytest.raises(openai.APIStatusError, match="longer than 20 s") as refused:
        server.transcribe(silence)
    assert refused.value.status_code == 413
    with socket.create_connection(server.address.removeprefix("http://").split(":")) as slow:
        head = "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n"
        slow.sendall(f"{head}Content-Type: {form['Content-Type']}\r\n\r\n--x".encode())
        assert slow.recv(4096).startswith(b"HTTP/1.1 408")
    server.pipe.may_go.clear()
    with pytest.raises(openai.InternalServerError, match=r"not ready after 0\.7 s") as refused:
        server.transcribe(sounds["one"])
    assert refused.value.status_code == 504
    with pytest.raises(openai.APIError, match="not ready"):
        list(server.transcribe(sounds["one"], stream=True))
    server.pipe.may_go.set()
    assert server.transcribe(sounds["one"]).text == server.pipe(sounds["one"])["text"]


REFUSED = [
    ({"temperature": 0.7}, "temperature", "does not sample"),
    ({"prompt": "Amsterdam"}, "prompt", r"holds hotwords, .* has no place for them"),
    ({"response_format": "diarized_json"}, "response_format", "'json', 'text'"),
    ({"timestamp_granularities": ["word"]}, "timestamp_granularities[]", "verbose_json alone"),
    ({"stream": True, "response_format": "srt"}, "response_format", "A stream holds text"),
    ({"include": ["logprobs"]}, "include[]", "Extra inputs"),
    ({"file": ("a.mp3", b"no audio at all")}, "file", r"a\.mp3"),
    ({"file": ("a.wav", wav(np.zeros(0)))}, "file", r"a\.wav: holds no samples"),
]


def test_what_the_model_cannot_do_or_read_is_refused_by_the_name_of_the_field(serve, sounds):
    server = serve()
    for fields, param, message in REFUSED:
        with pytest.raises(openai.BadRequestError, match=message) as refused:
            server.transcribe(sounds["one"], **fields)
        assert (refused.value.param, refused.value.type) == (param, "invalid_request_error")
    with pytest.raises(openai.NotFoundError, match="'whisper-1' does not exist here; this server has 'tiny'"):
        server.transcribe(sounds["one"], model="whisper-1")
    assert server.gauge('slam_asr_requests_total{code="400"}') == len(REFUSED)


def test_half_a_file_is_refused_and_its_neighbours_are_heard(serve, sounds):
    server = serve()
    with pytest.raises(openai.BadRequestError, match=r"clip\.wav") as refused:
        server.transcribe(sounds["long"][: len(sounds["long"]) // 2])
    assert refused.value.code == "truncated"
    assert server.transcribe(sounds["one"], temperature=0, prompt="").text


def test_a_model_without_a_head_refuses_times_and_gives_text(serve, sounds, pipe_without_head):
    server = serve(pipe_without_head, tells_times=False)
    assert server.transcribe(sounds["long"]).text == server.pipe(sounds["long"])["text"]
    for written in ("srt", "vtt", "verbose_json"):
        with pytest.raises(openai.BadRequestError, match="needs the times of words"):
            server.transcribe(sounds["one"], response_format=written)


def test_the_prompt_tells_hotwords_to_a_model_that_reads_them(serve, sounds):
    server = serve()
    server.pipe.processor.instruction = "{hotwords}\n"
    told = server.transcribe(sounds["one"], prompt="Schiphol, Jan de Vries,\n").text
    assert told == server.pipe(sounds["one"], hotwords=["schiphol", "jan de vries"])["text"]
    assert server.transcribe(sounds["one"]).text == server.pipe(sounds["one"])["text"] != told


def test_a_model_whose_instruction_names_the_language_hears_each_request_in_its_own(
    serve, sounds, pipe_without_head
):
    pipe_without_head.processor.instruction = "say in {language}:\n"
    server = serve(pipe_without_head, tells_times=False, language="nl")
    expected = {code: server.pipe(sounds["one"], language=code)["text"] for code in ("nl", "da")}
    assert len(set(expected.values())) == 2
    server.pipe.may_go.clear()
    with ThreadPoolExecutor(3) as pool:
        given = [{}, {"language": "da"}, {"language": "Danish"}]
        found = [pool.submit(server.transcribe, sounds["one"], **fields) for fields in given]
        server.wait_for("slam_asr_requests_open", 3)
        server.pipe.may_go.set()
        assert [future.result().text for future in found] == [expected[code] for code in ("nl", "da", "da")]
    with pytest.raises(openai.BadRequestError, match="'xx' has no English name"):
        server.transcribe(sounds["one"], language="xx")


def test_without_the_key_nobody_transcribes_and_health_and_metrics_stay_open(serve, sounds):
    server = serve(api_key=KEY)
    assert server.transcribe(sounds["one"]).text
    for wrong in (b"another", b"a key and more", b"\xe9"):
        wrong_key = {b"Authorization": b"Bearer " + wrong}
        assert httpx2.get(f"{server.address}/v1/models", headers=wrong_key).status_code == 401
    with pytest.raises(openai.AuthenticationError, match="missing or wrong") as refused:
        server.client.with_options(api_key="another").models.list()
    assert refused.value.code == "invalid_api_key"
    assert server.get("/v1/models").status_code == 401
    assert server.get("/health").json() == {"status": "ok"}
    assert server.get("/metrics").status_code == 200


def test_models_health_and_metrics_say_what_is_there(serve, sounds):
    server = serve()
    assert [model.id for model in server.client.models.list()] == ["tiny"]
    assert server.client.models.retrieve("tiny").owned_by == "slam-asr"
    with pytest.raises(openai.NotFoundError):
        server.client.models.retrieve("another")
    assert server.get("/v1/chat/completions").json()["error"]["type"] == "invalid_request_error"
    seconds = server.transcribe(sounds["long"]).usage.seconds
    assert server.gauge('slam_asr_requests_total{code="200"}') == 1
    assert server.gauge("slam_asr_request_seconds_count") == 1
    assert server.gauge("slam_asr_audio_seconds_total") == pytest.approx(seconds, rel=0.05)
    assert server.gauge("slam_asr_busy_seconds_total") > 0
    assert server.gauge("slam_asr_batch_chunks_count") == len(server.pipe.batches)
    assert server.gauge("slam_asr_requests_open") == server.gauge("slam_asr_audio_seconds_waiting") == 0


def test_a_server_that_is_told_to_end_answers_what_it_has_begun_and_takes_nothing_new(serve, sounds):
    server = serve(batch_seconds=2)
    expected = server.pipe(sounds["one"])["text"]
    server.pipe.may_go.clear()
    with ThreadPoolExecutor(3) as pool:
        begun = [pool.submit(server.transcribe, sounds["one"]) for _ in range(3)]
        server.wait_for("slam_asr_requests_open", 3)
        server.server.should_exit = True
        refuses_within(server, 10)
        server.pipe.may_go.set()
        assert {future.result().text for future in begun} == {expected}
    server.thread.join(30)
    assert not server.thread.is_alive()


def refuses_within(server: Running, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            server.get("/health")
        except httpx2.ConnectError:
            return
        time.sleep(0.02)
    raise AssertionError("New connections are still taken.")


def test_a_client_that_goes_away_costs_no_further_work(serve, sounds):
    server = serve(batch_seconds=5)
    server.pipe.may_go.clear()
    with pytest.raises(openai.APITimeoutError):
        server.client.with_options(timeout=0.3).audio.transcriptions.create(
            model="tiny", file=("long.wav", sounds["long"])
        )
    server.wait_for('slam_asr_requests_total{code="499"}', 1)
    server.pipe.may_go.set()
    server.transcribe(sounds["one"])
    assert len(server.pipe.batches) <= 3


def test_a_recording_on_which_the_model_fails_takes_no_other_with_it(
    serve, sounds, pipe_with_head, monkeypatch
):
    own = pipe_with_head.generated

    def fails_on_long(inputs, chunks, **settings):
        if any(len(chunk.samples) > 2 * RATE for chunk in chunks):
            raise RuntimeError("out of memory")
        return own(inputs, chunks, **settings)

    monkeypatch.setattr(pipe_with_head, "generated", fails_on_long)
    server = serve(pipe_with_head)
    server.pipe.may_go.clear()
    with ThreadPoolExecutor(2) as pool:
        good, bad = (pool.submit(server.transcribe, sounds[name]) for name in ("one", "other"))
        server.wait_for("slam_asr_requests_open", 2)
        server.pipe.may_go.set()
        assert good.result().text
        with pytest.raises(openai.InternalServerError, match="The model failed: RuntimeError: out of memory"):
            bad.result()
    assert server.gauge('slam_asr_requests_total{code="500"}') == 1
    with pytest.raises(openai.APIError, match="out of memory"):
        list(server.transcribe(sounds["other"], stream=True))
    assert server.get("/health").status_code == 200


def test_a_device_that_failed_makes_the_server_unhealthy(serve, sounds, pipe_with_head, monkeypatch):
    def fails(*_arguments, **_settings):
        raise torch.AcceleratorError("device-side assert triggered", 710)

    monkeypatch.setattr(pipe_with_head, "generated", fails)
    server = serve(pipe_with_head)
    with pytest.raises(openai.InternalServerError, match="device-side assert"):
        server.transcribe(sounds["one"])
    assert server.get("/health").status_code == 503
    with pytest.raises(openai.InternalServerError, match="hears nothing any more") as refused:
        server.transcribe(sounds["one"])
    assert refused.value.status_code == 503


def test_an_address_that_is_taken_is_named_before_the_model_is_loaded():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit, match=f"`--host 127.0.0.1 --port {port}` cannot be listened at"):
            main(["no-model", "--port", str(port)])


@pytest.mark.e2e
def test_the_command_serves_what_transcribe_writes_until_sigterm_and_ends_well(
    checkpoint_with_head, sounds, tmp_path
):
    (tmp_path / "long.wav").write_bytes(sounds["long"])
    command = [sys.executable, "-m", "slam_asr"]
    environment = os.environ | {"SLAM_ASR_API_KEY": KEY, "PYTHONPATH": str(REPOSITORY)}
    given = {"cwd": tmp_path, "env": environment, "text": True}
    transcribe = [*command, "transcribe", str(checkpoint_with_head), "long.wav", "--format", "json,srt"]
    subprocess.run(transcribe, check=True, capture_output=True, **given)
    process = subprocess.Popen(
        [*command, "serve", str(checkpoint_with_head), "--port", "0"], stdout=subprocess.PIPE, **given
    )
    try:
        line = process.stdout.readline()
        assert line.startswith("Serving with-head at http://127.0.0.1:")
        client = openai.OpenAI(base_url=line.split()[-1], api_key=KEY, max_retries=0)

        def ask(**fields):
            return client.audio.transcriptions.create(model="with-head", file=tmp_path / "long.wav", **fields)

        written = json.loads((tmp_path / "transcripts" / "long.json").read_text(encoding="utf-8"))
        assert ask().text == written["text"]
        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(ask, response_format="srt") for _ in range(4)]
            while "slam_asr_requests_open 4.0" not in httpx2.get(line.split()[-1][:-3] + "/metrics").text:
                assert not all(future.done() for future in asked)
            process.send_signal(signal.SIGTERM)
            subtitles = (tmp_path / "transcripts" / "long.srt").read_text(encoding="utf-8")
            assert {future.result() for future in asked} == {subtitles}
        assert process.wait(30) == 0
        assert process.stdout.read().endswith("All that was begun is answered.\n")
    finally:
        process.kill()
