"""The error browser in a real Chromium, from disk: filters, diffs, a clip that plays, many utterances."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from made_study import predictions_of, row, spec_of, write_study
from real_chromium import open_chromium

from modeling_slam.analysis import StudyResults
from modeling_slam.demo.commands import ASSETS
from modeling_slam.paper.view import paper_view
from modeling_slam.report.browser import write_browser
from modeling_slam.report.pages import write_report

pytestmark = pytest.mark.browser

CLIP = "en/clip-0001"


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    with open_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def demo_report(tmp_path_factory) -> Path:
    """A study on the project's own synthetic speech, so that its clips may be shown and heard."""
    from modeling_slam.data import DataArguments, load_speech

    flags = {"id_column": "id", "speaker_column": "speaker"}
    speech = str(Path(__file__).parents[2] / ASSETS / "speech" / "en")
    dataset, _ = load_speech(DataArguments(dataset=speech, language="en", **flags), "test")
    runs = []
    for layers, mode in [(6, "projector"), (6, "lora"), (4, "projector"), (4, "lora")]:
        spec = spec_of(layers, mode, "en") | {"dataset": speech, "eval_flags": flags}
        rows = [
            row(
                index,
                text,
                text if mode == "lora" or index % layers else "something else",
                id=clip,
                duration=2.0,
            )
            for index, (clip, text) in enumerate(zip(dataset["id"], dataset["text"], strict=True))
        ]
        runs.append((spec, rows))
    study = write_study(tmp_path_factory.mktemp("demo"), runs)
    return write_report(study, view=paper_view(beside=False), clips=3)


@pytest.fixture(scope="module")
def full_report(study_directory, tmp_path_factory) -> Path:
    """Two languages beside the paper: as many tables, rows and columns as there are."""
    return write_report(study_directory, tmp_path_factory.mktemp("full") / "report", paper_view())


@pytest.fixture
def page(chromium) -> Iterator:
    page = chromium.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: problems.append(request.url) if "file:" not in request.url else None)
    yield page
    page.close()
    assert problems == []  # no script error, and nothing fetched but files


def shown(page) -> int:
    return int(page.locator("#count").inner_text().split()[0].replace(",", ""))


def test_filters_choose_language_run_and_kind_of_error(page, study, tmp_path):
    write_browser(study, tmp_path / "errors.html")
    page.goto((tmp_path / "errors.html").as_uri())
    page.select_option("#language", "nl")
    page.select_option("#run", "base-2L-projector-nl-s42")
    frame = study.utterances("base-2L-projector-nl-s42")
    assert shown(page) == (frame["errors"] > 0).sum()
    for kind, column in [("s", "substitutions"), ("d", "deletions"), ("i", "insertions")]:
        page.select_option("#kind", kind)
        assert shown(page) == (frame[column] > 0).sum()
    page.select_option("#kind", "severe")
    assert shown(page) == (frame["wer"] > 0.8).sum()
    page.select_option("#kind", "kind:repetition")
    assert shown(page) == frame["loop"].sum()
    page.select_option("#other", "base-2L-lora-nl-s42")
    page.select_option("#kind", "won")
    with_lora = study.utterances("base-2L-lora-nl-s42")
    assert shown(page) == ((frame["errors"] > 0) & (with_lora["errors"] == 0)).sum()
    page.select_option("#kind", "all")
    page.fill("#text", "clip-0007")
    page.wait_for_function("document.getElementById('count').textContent.startsWith('1 ')")
    page.click("button[type=reset]")
    page.wait_for_function("document.getElementById('language').value === 'en'")


def test_a_diff_shows_every_run_word_by_word(page, tmp_path):
    heard = {"projector": "a x c e e", "lora": "a b c d"}
    runs = [(spec_of(6, mode, "en"), [row(1, "a b c d", text)]) for mode, text in heard.items()]
    write_browser(StudyResults.load(write_study(tmp_path, runs)), tmp_path / "errors.html")
    page.goto((tmp_path / "errors.html").as_uri() + "#run=base-6L-projector-en-s42")
    card = page.locator(f'#list details[data-id="{CLIP}"]')
    card.locator("summary").click()
    card.locator(".diff").nth(1).wait_for()  # it is made when the card has opened
    wrong, right = card.locator(".diff").all()
    rows = [cells.locator("td").all_inner_texts() for cells in wrong.locator("tr").all()]
    said, written, marks = rows
    assert [word for word in said if word] == ["a", "b", "c", "d"]
    assert [word for word in written if word] == ["a", "x", "c", "e", "e"]
    assert sorted(mark for mark in marks if mark) == ["I", "S", "S"]
    assert "WER 75.0 %" in wrong.locator("caption").inner_text()
    assert "WER 0.0 %" in right.locator("caption").inner_text()
    assert right.locator("td.s, td.d, td.i").count() == 0


def test_a_clip_plays_from_disk(page, demo_report):
    page.goto((demo_report / "errors.html").as_uri())
    page.check("#heard")
    page.select_option("#kind", "all")
    assert shown(page) == 3
    card = page.locator("#list details").first
    card.locator("summary").click()
    player = card.locator("audio")
    player.evaluate("player => { player.muted = true; return player.play(); }")
    page.wait_for_function("document.querySelector('audio').currentTime > 0.2", timeout=15_000)
    assert player.evaluate("player => player.readyState") >= 2
    assert player.evaluate("player => player.error") is None
    assert player.evaluate("player => player.duration") > 0.5


def test_the_report_leads_into_the_browser(page, demo_report):
    page.goto((demo_report / "report.html").as_uri())
    broken = "[...document.images].filter(image => !image.naturalWidth).length"
    assert page.evaluate(broken) == 0
    page.locator("#table2_wer ~ div a").first.click()
    page.locator("tr:target a").click()
    assert page.locator("#run").input_value() == "base-6L-projector-en-s42"


CUT = """[...document.querySelectorAll('.wide, td, th')]
    .filter(element => element.scrollWidth > element.clientWidth + 1)
    .filter(element => getComputedStyle(element).display !== 'none')
    .filter(element => !element.closest('thead') || matchMedia('(min-width: 44.1rem)').matches)
    .map(element => element.textContent.slice(0, 80))"""


@pytest.mark.parametrize("width", [390, 1280])
def test_pages_fit_their_window_and_no_table_is_cut(page, demo_report, full_report, width):
    page.set_viewport_size({"width": width, "height": 900})
    for file in (demo_report / "errors.html", demo_report / "report.html", full_report / "report.html"):
        page.goto(file.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(CUT) == []


def test_on_a_phone_each_cell_says_what_it_is_and_panels_stand_below_each_other(page, full_report):
    page.set_viewport_size({"width": 390, "height": 900})
    page.goto((full_report / "report.html").as_uri())
    title = "getComputedStyle(document.querySelector('#table2_wer + p + div td'), '::before').content"
    assert "encoder" in page.evaluate(title)
    assert (
        page.locator("#plot-wer_by_depth img").evaluate("image => image.currentSrc").endswith("-narrow.svg")
    )
    shape = "image => image.naturalHeight / image.naturalWidth"
    assert page.locator("#plot-wer_by_depth img").evaluate(shape) > 1
    page.set_viewport_size({"width": 1280, "height": 900})
    page.wait_for_function("!document.querySelector('#plot-wer_by_depth img').currentSrc.includes('narrow')")


def test_every_control_has_a_name_and_works_by_keyboard(page, demo_report):
    page.goto((demo_report / "errors.html").as_uri())
    nameless = "[...document.querySelectorAll('select, input')].filter(field => !field.labels.length).length"
    assert page.evaluate(nameless) == 0
    summary = page.locator("#list summary").first
    summary.focus()
    page.keyboard.press("Enter")
    page.locator("#list details[open] .diff").nth(3).wait_for()  # one a run


AWKWARD_IDS = [
    "plain", "it's \"quoted\" & <b>bold</b>", "</script><script>document.title = 'broken'</script>",
    "<!--<script>", "a\nb\tc\rd", "..\\dir/../other/clip.wav", "\u202eright to left", "قصير 12.wav",
    "nul\0bell\a",
    "x" * 5000, "🙂" * 300, "${1}`\\u0041", "]]>", "\u2028line", "__proto__", "toString", " ",
]  # fmt: skip


def test_no_id_breaks_the_page(page, tmp_path):
    """Quotes, ends of elements and comments, line breaks, slashes, directions, control signs, length."""
    rows = [row(place, "one two", "one too", id=name) for place, name in enumerate(AWKWARD_IDS)]
    study = write_study(tmp_path, [(spec_of(6, "projector", "en"), rows)])
    write_browser(StudyResults.load(study), tmp_path / "errors.html")
    page.set_viewport_size({"width": 390, "height": 900})
    page.goto((tmp_path / "errors.html").as_uri() + "#kind=toString")
    assert shown(page) == len(AWKWARD_IDS)
    assert page.title() == "made: error browser"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    ids = page.evaluate("[...document.querySelectorAll('#list details')].map(card => card.dataset.id)")
    assert ids == AWKWARD_IDS
    first_lines = page.locator("#list summary .about").all_inner_texts()
    assert all(" · WER 50.0 % · " in text for text in first_lines)
    assert not any("\u202e" in text or "\0" in text for text in first_lines)
    assert max(map(len, first_lines)) < 400
    page.fill("#text", "<!--")
    page.wait_for_function("document.getElementById('count').textContent.startsWith('1 ')")
    page.locator("#list summary").first.click()
    page.locator("#list details[open] .diff").wait_for()


def test_twelve_thousand_utterances_stay_quick(page, tmp_path):
    runs = [
        (spec_of(6, mode, "en"), predictions_of(6, mode, "en", 12_000, 0)) for mode in ("projector", "lora")
    ]
    write_browser(StudyResults.load(write_study(tmp_path, runs)), tmp_path / "errors.html")
    page.goto((tmp_path / "errors.html").as_uri())
    milliseconds = page.evaluate(
        "() => { const kind = document.getElementById('kind'); const start = performance.now(); "
        "kind.value = 'all'; kind.dispatchEvent(new Event('change')); return performance.now() - start; }"
    )
    assert shown(page) == 12_000
    assert page.locator("#list details").count() == 50  # a page of them, not all
    page.click("#next")
    assert page.locator("#page").inner_text() == "page 2 of 240"
    assert milliseconds < 2000  # some 50 on an idle machine
