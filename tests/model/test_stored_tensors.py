"""stored_tensors: the tensors of a file, read when they are needed, gone from memory once copied."""

import gc
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from modeling_slam.model.stored_tensors import DTYPES, stored_tensors


def bytes_in_memory(file: Path) -> int:
    """Of this process's mappings of the file."""
    found = rf"{re.escape(str(file))}\n(?:\w+:.*\n)*?Rss:\s+(\d+) kB"
    return 1024 * sum(map(int, re.findall(found, Path("/proc/self/smaps").read_text())))


def test_they_are_the_tensors_of_the_file(tmp_path):
    """All dtypes and awkward shapes, against safetensors."""
    torch.manual_seed(0)
    tensors = {f"{dtype} {shape}": torch.randint(0, 2, shape).to(dtype)
               for dtype in DTYPES.values() for shape in [(), (3,), (2, 5, 7), (0, 4)]}  # fmt: skip
    save_file(tensors, tmp_path / "x.safetensors", {"format": "pt"})
    found, expected = stored_tensors(tmp_path / "x.safetensors"), load_file(tmp_path / "x.safetensors")
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].shape == tensor.shape
        assert found[name].nbytes == tensor.nbytes
        assert found[name][...].dtype == tensor.dtype
        assert torch.equal(found[name][...], tensor)
        if tensor.dim() > 1:
            assert torch.equal(found[name][:1], tensor[:1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel counts mapped pages on Linux")
def test_a_converted_tensor_leaves_nothing_behind_and_a_kept_one_stays(tmp_path):
    size = 16 * 2**20
    save_file({name: torch.ones(size // 4) for name in "ab"}, tmp_path / "x.safetensors")
    tensors = stored_tensors(tmp_path / "x.safetensors")
    kept = tensors["a"][...]
    assert kept.sum() == size // 4
    converted = tensors["b"][...].to(torch.float64)
    gc.collect()
    assert converted.sum() == size // 4
    assert size <= bytes_in_memory(tmp_path / "x.safetensors") < 1.1 * size
    part = kept[1:]
    del kept
    assert part.sum() == size // 4 - 1
    del part
    assert bytes_in_memory(tmp_path / "x.safetensors") < 0.1 * size


def test_what_a_model_changes_is_not_the_files_nor_its_neighbours(tmp_path):
    save_file({name: torch.ones(3_000) for name in "abc"}, tmp_path / "x.safetensors")
    tensors = stored_tensors(tmp_path / "x.safetensors")
    first, third = tensors["a"][...], tensors["c"][...]
    first.add_(1)
    third.add_(2)
    assert tensors["b"][...].double().sum() == 3_000  # comes and goes between them, on pages they share
    assert (first.sum(), third.sum()) == (6_000, 9_000)
    assert all(tensor.sum() == 3_000 for tensor in load_file(tmp_path / "x.safetensors").values())


def test_a_file_that_is_replaced_while_a_model_lives_changes_nothing(tmp_path):
    save_file({"a": torch.ones(100_000)}, tmp_path / "x.safetensors")
    tensor = stored_tensors(tmp_path / "x.safetensors")["a"][...]
    save_file({"a": tensor * 2}, tmp_path / "x.safetensors")
    assert tensor.sum() == 100_000
    assert stored_tensors(tmp_path / "x.safetensors")["a"][...].sum() == 200_000


@pytest.mark.parametrize(
    "content", [b"", b"\x10", b"\xff" * 64, b"\x03\0\0\0\0\0\0\0[1]", b"\x02\0\0\0\0\0\0\0{1}"]
)
def test_what_is_no_safetensors_file_is_named(tmp_path, content):
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(OSError, match=r"x\.safetensors is truncated or no safetensors file"):
        stored_tensors(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "entry",
    [
        {"data_offsets": [0, 24]},  # longer than the file
        {"data_offsets": [-4, 12]},
        {"data_offsets": [0, 12]},  # too short for its shape
        {"shape": [5]},
        {"dtype": "F64"},
        {"data_offsets": None},
    ],
)
def test_a_header_that_does_not_fit_its_file_is_refused(tmp_path, entry):
    header = json.dumps({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} | entry}).encode()
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    with pytest.raises(OSError, match=r"x\.safetensors is truncated or no safetensors file"):
        stored_tensors(tmp_path / "x.safetensors")


def test_a_dtype_that_models_do_not_have_is_named(tmp_path):
    save_file({"scale": torch.zeros(4, dtype=torch.float8_e4m3fn)}, tmp_path / "x.safetensors")
    with pytest.raises(OSError, match=r"x\.safetensors.*scale has dtype F8_E4M3, known are F64, F32"):
        stored_tensors(tmp_path / "x.safetensors")
