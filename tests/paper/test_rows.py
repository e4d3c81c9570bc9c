"""The paper's Table 2 through our analysis gives its Tables 3 and 5, and shows where its rows disagree."""

import pytest

from modeling_slam.analysis.tables import lora_gain, sweet_spots
from modeling_slam.paper import rows
from modeling_slam.paper.published import paper_results, read_table
from modeling_slam.paper.rows import check_reductions, check_table3, check_table5, check_table7


def disagreeing(table, *names) -> set:
    return set(table[~table["agrees"]][list(names)].itertuples(index=False, name=None))


def test_table_2_reproduces_table_5():
    printed = read_table("table5_lora_reduction").set_index(["encoder", "language"])
    gains = lora_gain(paper_results().runs)
    assert len(gains) == 9
    for gain in gains.itertuples():
        row = printed.loc[(gain.encoder_name, gain.language)]
        assert 100 * gain.full == pytest.approx(row["full_plus_lora_points"])
        assert 100 * gain.pruned == pytest.approx(row["pruned_plus_lora_points"])
    assert check_table5()["agrees"].all()


def test_table_2_reproduces_the_sweet_spots_of_table_3():
    spots = sweet_spots(paper_results().runs)
    assert [f"{spot.keep_layers}{spot.mode}" for spot in spots.itertuples()] == [
        "12projector", "12lora", "10lora", "24projector", "24lora", "22lora",
        "32projector", "32lora", "30lora",
    ]  # fmt: skip
    table = check_table3()
    assert len(table) == 9 * 5
    assert table[table["figure"].str.startswith("WER")]["agrees"].all()


def test_rows_of_the_paper_that_disagree_are_flagged():
    assert disagreeing(check_table3(), "encoder_name", "configuration", "figure") == {
        ("medium", configuration, figure)
        for configuration in ("24L+LoRA", "22L+LoRA")
        for figure in ("parameters (M)", "net change (M)")
    }
    assert disagreeing(check_table7(), "encoder_name", "language") == {
        ("small", "da"), ("small", "nl"), ("small", "en"), ("medium", "da"), ("large-v2", "nl"),
    }  # fmt: skip


def test_a_flag_is_raised_by_a_changed_figure(monkeypatch):
    table = read_table("table5_lora_reduction")
    table.loc[3, "full_plus_lora_points"] += 0.01
    monkeypatch.setattr(rows, "read_table", lambda name: table)
    assert disagreeing(check_table5(), "encoder_name", "language", "figure") == {("medium", "da", "full")}


def test_reductions_are_those_of_the_encoders():
    table = check_reductions()
    assert len(table) == 34
    assert (table["stated"] - table["computed"]).abs().max() < 0.1
