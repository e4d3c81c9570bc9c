"""The store of encoder frames: whole or absent, shared, bounded."""

import os
import pickle
from types import SimpleNamespace

import pytest
import torch

from modeling_slam.data import frame_store
from modeling_slam.data.frame_store import FrameStore, StoreFullError


def frames(number: int, length: int = 10) -> torch.Tensor:
    """(length, 4), 160 bytes for 10."""
    return torch.full((length, 4), float(number))


def write(store: FrameStore, space: str, *numbers: int) -> None:
    with store.writer(space) as writer:
        for number in numbers:
            writer.add(f"clip {number}", frames(number))


@pytest.fixture
def store(tmp_path, monkeypatch) -> FrameStore:
    """Two clips fill a shard."""
    monkeypatch.setattr(frame_store, "SHARD_BYTES", 320)
    return FrameStore(tmp_path / "cache")


def test_what_is_written_is_read_in_its_space_alone(store):
    write(store, "deep", 1, 2, 3)
    reader = store.reader("deep")
    assert len({*reader.shards.values()}) == 2
    for number in (3, 1, 2):
        assert torch.equal(reader[f"clip {number}"], frames(number))
    assert "clip 4" not in reader
    assert "clip 1" not in store.reader("shallow")


def test_a_reader_goes_to_other_processes(store):
    write(store, "deep", 1)
    reader = store.reader("deep")
    reader.hold(["clip 1"])
    assert torch.equal(pickle.loads(pickle.dumps(reader))["clip 1"], frames(1))


def test_bfloat16_comes_back_as_it_was(store):
    with store.writer("deep") as writer:
        writer.add("clip", frames(1).bfloat16())
    assert store.reader("deep")["clip"].dtype == torch.bfloat16


def test_a_process_that_dies_leaves_whole_shards_only(store, monkeypatch):
    def half(tensors, path):
        path.write_bytes(b"half a file")
        raise KeyboardInterrupt

    write(store, "deep", 1, 2)
    with monkeypatch.context() as patch:
        patch.setattr(frame_store, "save_file", half)
        with pytest.raises(KeyboardInterrupt):
            write(store, "deep", 3, 4)
    assert set(store.reader("deep").shards) == {"clip 1", "clip 2"}
    assert len(list(store.directory.glob("*/*"))) == 1


def test_two_processes_that_write_the_same_clip_do_no_harm(store):
    write(store, "deep", 1)
    write(store, "deep", 1)
    assert torch.equal(store.reader("deep")["clip 1"], frames(1))


def test_room_is_made_by_what_was_used_least_recently(store):
    for number in range(4):
        write(store, f"space {number}", number)
    shards = [store.reader(f"space {number}").shards[f"clip {number}"] for number in range(4)]
    for age, number in enumerate((2, 0, 3, 1)):  # 2 is the oldest
        os.utime(shards[number], (age, age))
    size = shards[0].stat().st_size
    store.make_room(size, 4 * size, in_use=set())
    assert [shard.exists() for shard in shards] == [True, True, False, True]
    store.make_room(2 * size, 4 * size, in_use={shards[0]})
    assert [shard.exists() for shard in shards] == [True, True, False, False]
    with pytest.raises(StoreFullError, match="`--cache_max_gb` allows"):
        store.make_room(4 * size, 4 * size, in_use={shards[0]})
    assert shards[1].exists(), "nothing is deleted in vain"


def test_a_disk_that_is_full_is_a_limit_too(store, monkeypatch):
    for number in range(2):
        write(store, f"space {number}", number)
    old, new = (store.reader(f"space {number}").shards[f"clip {number}"] for number in range(2))
    os.utime(old, (1, 1))
    size = old.stat().st_size
    monkeypatch.setattr(frame_store.shutil, "disk_usage", lambda path: SimpleNamespace(free=size // 2))
    store.make_room(size, 100 * size, in_use=set())
    assert (old.exists(), new.exists()) == (False, True)
    with pytest.raises(StoreFullError, match="its disk has room for"):
        store.make_room(2 * size, 100 * size, in_use={new})


def test_reading_counts_as_use(store):
    write(store, "deep", 1)
    reader = store.reader("deep")
    os.utime(reader.shards["clip 1"], (0, 0))
    shards = reader.hold(["clip 1", "clip 2"])
    assert shards == {reader.shards["clip 1"]}
    assert reader.shards["clip 1"].stat().st_mtime > 0


def test_frames_in_use_stay_readable_when_another_run_deletes_them(store):
    write(store, "deep", 1)
    reader = store.reader("deep")
    reader.hold(["clip 1"])
    reader.shards["clip 1"].unlink()
    assert torch.equal(reader["clip 1"], frames(1))


def test_a_damaged_shard_is_named(store):
    write(store, "deep", 1)
    shard = store.reader("deep").shards["clip 1"]
    shard.write_bytes(shard.read_bytes()[:20])
    with pytest.raises(OSError, match=f"{shard.name}.*delete it"):
        store.reader("deep")
