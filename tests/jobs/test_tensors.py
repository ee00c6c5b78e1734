"""Strict safetensors: what is written comes back bit for bit, and no claim is believed unchecked."""

from __future__ import annotations

import json
import math
import os
import pickle
import random
import resource
import struct
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from workbench.errors import Diverged, InputError
from workbench.jobs.tensors import DTYPES, load_tensors, read_header, save_tensors


def write_raw(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(dtype: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        load_tensors(path, **options)
    sentence = str(caught.value)
    assert str(path.parent) not in sentence
    assert "\n" not in sentence
    return sentence


def test_every_dtype_comes_back_bit_for_bit(tmp_path: Path) -> None:
    tensors = {}
    for name, dtype in DTYPES.items():
        values = torch.arange(12).reshape(3, 4)
        tensors[name] = values.ne(3) if dtype == torch.bool else values.to(dtype)
    tensors |= {"scalar": torch.tensor(1.5), "empty": torch.empty(0, 3), "view": torch.arange(10.0)[::2]}
    tensors["tied"] = tensors["F32"]
    save_tensors(tmp_path / "a.safetensors", tensors, {"note": "x"})
    loaded = load_tensors(tmp_path / "a.safetensors", expected=tensors)
    assert set(loaded) == set(tensors)
    for name, value in tensors.items():
        assert loaded[name].dtype == value.dtype
        assert torch.equal(loaded[name], value), name
    assert read_header(tmp_path / "a.safetensors").metadata == {"note": "x"}
    assert torch.equal(load_file(tmp_path / "a.safetensors")["view"], tensors["view"])
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.safetensors"]


def test_loaded_tensors_outlive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"w": torch.arange(1000.0)})
    loaded = load_tensors(path)["w"]
    path.write_bytes(b"")
    assert float(loaded.sum()) == 499500.0


def test_not_finite_is_refused_on_both_sides_and_nothing_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"w": torch.ones(3)})
    with pytest.raises(Diverged, match=r"'w' has 2 non-finite values"):
        save_tensors(path, {"w": torch.tensor([1.0, math.nan, math.inf])})
    assert torch.equal(load_tensors(path)["w"], torch.ones(3))
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        save_file({"w": torch.tensor([1.0, math.nan], dtype=dtype)}, path)
        assert "'w' has 1 non-finite values" in refusal(path)
    assert load_tensors(path, finite=False)["w"].isnan().sum() == 1
    save_file({"w": torch.full((4,), torch.finfo(torch.float32).max)}, path)
    assert load_tensors(path)["w"].numel() == 4


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_with_a_changed_ending_is_refused_by_name_and_not_run(tmp_path: Path, protocol: int) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    path = tmp_path / "weights.safetensors"
    path.write_bytes(pickle.dumps(Evil(), protocol=protocol))
    sentence = refusal(path)
    assert "pickle" in sentence or "not a safetensors file" in sentence
    torch.save({"w": torch.ones(2)}, path)
    assert "pickle" in refusal(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "only 0 bytes"),
        (b"1234567", "only 7 bytes"),
        (struct.pack("<Q", 2**63) + b"{}", "header is above 4 MB"),
        (struct.pack("<Q", 99_000_000) + b"{}", "header is above 4 MB"),
        (struct.pack("<Q", 0) + b"{}", "cut or not"),
        (struct.pack("<Q", 3_000_000) + b"{}", "cut or not"),
        (struct.pack("<Q", 2) + b"[]", "not JSON"),
        (struct.pack("<Q", 2) + b"\xff\xfe", "not UTF-8"),
        (struct.pack("<Q", 4) + b'{"a"', "not valid JSON"),
    ],
)
def test_broken_starts_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    assert words in refusal(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("header", "num_bytes", "words"),
    [
        (b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
         1, "states 'a' twice"),
        ({"a": entry("U8", [4], 0, 4), "b": entry("U8", [4], 2, 6)}, 6, "'b' overlaps"),
        ({"a": entry("U8", [4], 0, 4), "b": entry("U8", [4], 6, 10)}, 10, "hole before"),
        ({"a": entry("U8", [4], 0, 4)}, 3, "is cut"),
        ({"a": entry("U8", [4], 0, 4)}, 9, "belong to no tensor"),
        ({"a": entry("F32", [2**40, 2**40], 0, 4)}, 4, "needs"),
        ({"a": entry("F32", [-1], 0, 4)}, 4, "no valid shape"),
        ({"a": entry("F32", [1.0], 0, 4)}, 4, "no valid shape"),
        ({"a": entry("F32", [True], 0, 4)}, 4, "no valid shape"),
        ({"a": entry("F32", [0, 10**12], 0, 0)}, 0, "which no model has"),
        ({"a": entry("F8_E9", [4], 0, 4)}, 4, "known: F64"),
        ({"a": {**entry("U8", [4], 0, 4), "x": 1}}, 4, "must hold dtype"),
        ({"a": 7}, 0, "must hold dtype"),
        ({"a": entry("U8", [4], 4, 0)}, 4, "needs 4 bytes"),
        ({"__metadata__": {"a": 1}}, 0, "metadata"),
        ({"__metadata__": "x"}, 0, "metadata"),
    ],
)  # fmt: skip
def test_lying_headers_are_refused(tmp_path: Path, header: object, num_bytes: int, words: str) -> None:
    assert words in refusal(write_raw(tmp_path / "x.safetensors", header, b"\0" * num_bytes))


def test_too_many_tensors_are_refused_quickly(tmp_path: Path) -> None:
    header = {f"t{number}": entry("U8", [0], 0, 0) for number in range(100_000)}
    begun = time.process_time()
    assert "above 4 MB" in refusal(write_raw(tmp_path / "x.safetensors", header))
    header = {f"{number}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for number in range(21_000)}
    assert "21,000 tensors" in refusal(write_raw(tmp_path / "y.safetensors", header))
    assert time.process_time() - begun < 5.0


def test_hostile_names_are_shown_escaped_and_never_used_as_paths(tmp_path: Path) -> None:
    for name in ("../../x", "/etc/passwd", "<img src=x onerror=1>", "a\nb\x1b[31m", "x" * 5000):
        path = write_raw(tmp_path / "x.safetensors", {name: entry("U8", [1], 0, 1)}, b"\1")
        assert list(load_tensors(path)) == [name]
        sentence = refusal(path, expected={"weight": (1,)})
        assert "'weight' [1] is missing" in sentence
        assert "\x1b" not in sentence
        assert len(sentence) < 300
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["x.safetensors"]


def test_what_does_not_fit_is_listed_by_name_with_both_shapes(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_tensors(path, {f"w{number}": torch.ones(2, 3) for number in range(9)})
    sentence = refusal(path, expected={f"w{number}": (3, 2) for number in range(9)}, what="The bank's cell")
    assert sentence.startswith("The bank's cell does not fit: 'w0' is [2, 3], expected [3, 2];")
    assert sentence.endswith("and 4 more.")
    save_tensors(path, {"w": torch.ones(2, dtype=torch.int8)})
    assert "'w' is int8, expected float32" in refusal(path, expected={"w": torch.ones(2)})


def test_things_that_are_not_files_are_refused_without_hanging(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "is not a file" in refusal(tmp_path / "pipe")
    assert "is not a file" in refusal(tmp_path)
    assert "does not exist" in refusal(tmp_path / "none")
    assert "cannot be read" in refusal(Path(f"{tmp_path}/a\0b"), what="x")


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_tensors(path, {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.int64)})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        refusal(path)


def fuzz(tmp_path: Path, *, rounds: int, seed: int) -> dict[str, float]:
    """Damage headers at random; count loads, refusals and anything else; note time and memory."""
    chance = random.Random(seed)
    path = tmp_path / "x.safetensors"
    save_tensors(
        path, {f"block.{number}.weight": torch.ones(number + 1, 3) for number in range(6)}, {"a": "b"}
    )
    whole = path.read_bytes()
    header_end = 8 + struct.unpack("<Q", whole[:8])[0]
    counts = {"rounds": rounds, "loaded": 0, "refused": 0, "slowest": 0.0}
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(rounds):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 1, 2, 5, 20))):
            place = chance.randrange(header_end)
            kind = chance.randrange(4)
            if kind == 0:
                data[place] = chance.randrange(256)
            elif kind == 1:
                data[place] = ord(chance.choice('0123456789{}[]",:-eE.'))
            elif kind == 2:
                del data[place : place + chance.randrange(1, 9)]
            else:
                data[place:place] = bytes(
                    chance.choice((b"9" * 30, b"[" * 500, b'"a":', b"\0", b"-1", b"1e400"))
                )
        if chance.random() < 0.7:
            data[:8] = struct.pack("<Q", max(0, len(data) - 8 - (len(whole) - header_end)))
        path.write_bytes(data)
        begun = time.monotonic()
        try:
            load_tensors(path)
            counts["loaded"] += 1
        except InputError as error:
            assert str(tmp_path) not in str(error)
            counts["refused"] += 1
        counts["slowest"] = max(counts["slowest"], time.monotonic() - begun)
    counts["grown_megabytes"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) / 1024
    return counts


def test_fuzzed_headers_are_refused_in_a_sentence(tmp_path: Path) -> None:
    counts = fuzz(tmp_path, rounds=500, seed=0)
    assert counts["loaded"] + counts["refused"] == 500
    assert counts["refused"] > 250
    assert counts["slowest"] < 10.0
    assert counts["grown_megabytes"] < 200
