"""Read and write named tensors as safetensors, strictly: nothing that a file says is believed unchecked.

The safetensors library accepts duplicate names, a million empty tensors and NaN, and names faults in its own
words; so the header is checked here, by rules that are tested one by one. There is no pickle in this project.
Knows nothing of what the tensors mean.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import stat
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import save_file

from workbench.errors import Diverged, InputError
from workbench.workspace import disk_error, parse_json, sync

MAX_HEADER_BYTES = 4 * 1024 * 1024
MAX_TENSORS = 20_000
DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "U16": torch.uint16, "U32": torch.uint32, "U64": torch.uint64, "BOOL": torch.bool,
}  # fmt: skip
Expected = Mapping[str, torch.Tensor | Sequence[int]]


@dataclass(frozen=True)
class TensorFacts:
    """Where one tensor lies in a file: dtype, shape, first and last byte of the data part."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """Checked header of a safetensors file; `data_start` is the offset of the data part in bytes."""

    tensors: dict[str, TensorFacts]
    metadata: dict[str, str]
    data_start: int


def save_tensors(
    path: Path,
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str] | None = None,
    *,
    finite: bool = True,
) -> None:
    """Write a safetensors file atomically: beside its place, synced, renamed.

    Args:
        path: the file; its folder exists.
        tensors: by name; moved to the CPU, made contiguous, shared storage is copied.
        metadata: short strings kept in the header.
        finite: refuse NaN and infinity.

    Raises:
        Diverged: a tensor is not finite; nothing was written.
        DiskFull, InputError: the disk is full or the place cannot be written; the old file is intact.
    """
    plain: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        ready = tensor.detach().cpu().contiguous()
        if ready.untyped_storage().data_ptr() in seen or ready.untyped_storage().nbytes() != ready.nbytes:
            ready = ready.clone()
        seen.add(ready.untyped_storage().data_ptr())
        plain[name] = ready
        if finite and (bad := count_non_finite(ready)):
            raise Diverged(f"Tensor {show(name)} has {bad:,} non-finite values; {path.name} was not written.")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        save_file(plain, temporary, metadata=dict(metadata or {}))
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        raise disk_error(path, error, needed=sum(tensor.nbytes for tensor in plain.values())) from error
    except Exception as error:
        if not _is_disk_failure(error):
            raise
        cause = _as_os_error(error)
        raise disk_error(path, cause, needed=sum(tensor.nbytes for tensor in plain.values())) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def load_tensors(
    path: Path, *, expected: Expected | None = None, what: str = "", finite: bool = True
) -> dict[str, torch.Tensor]:
    """Read every tensor of a safetensors file into memory, after checking all that the file claims.

    Args:
        path: the file.
        expected: name to tensor (shape and dtype are compared) or to shape; None accepts any names.
        what: how to call the file in an error; None takes its name.
        finite: refuse NaN and infinity.

    Returns:
        name to CPU tensor, each in its own memory (the file is not mapped).

    Raises:
        InputError: one sentence that names the file, the tensor and what was expected.
    """
    what = what or path.name
    with _open(path, what) as file:
        header = _read_header(file, what)
        if expected is not None:
            check_expected(header, expected, what=what)
        try:
            loaded = {name: _read_tensor(file, header, name, what) for name in header.tensors}
        except OSError as error:
            raise InputError(f"{what} cannot be read ({error.strerror}).") from None
    if finite:
        for name, tensor in loaded.items():
            if bad := count_non_finite(tensor):
                raise InputError(
                    f"{what}: tensor {show(name)} has {bad:,} non-finite values; it was refused."
                )
    return loaded


def read_header(path: Path, *, what: str = "") -> Header:
    """Check and return the header of a safetensors file without reading the data.

    Raises:
        InputError: as `load_tensors`.
    """
    what = what or path.name
    with _open(path, what) as file:
        return _read_header(file, what)


def check_expected(header: Header, expected: Expected, *, what: str) -> None:
    """Compare names, shapes and (for expected tensors) dtypes; list the first five differences.

    Raises:
        InputError: the first five missing, unknown or differing tensors, both sides named.
    """
    faults: list[str] = []
    for name, wanted in expected.items():
        shape = tuple(wanted.shape if isinstance(wanted, torch.Tensor) else wanted)
        facts = header.tensors.get(name)
        if facts is None:
            faults.append(f"{show(name)} {list(shape)} is missing")
        elif facts.shape != shape:
            faults.append(f"{show(name)} is {list(facts.shape)}, expected {list(shape)}")
        elif isinstance(wanted, torch.Tensor) and facts.dtype != wanted.dtype:
            faults.append(f"{show(name)} is {_short(facts.dtype)}, expected {_short(wanted.dtype)}")
    faults += [f"{show(name)} is not known" for name in header.tensors if name not in expected]
    if faults:
        more = f"; and {len(faults) - 5:,} more" if len(faults) > 5 else ""
        raise InputError(f"{what} does not fit: {'; '.join(faults[:5])}{more}.")


def count_non_finite(tensor: torch.Tensor) -> int:
    """Return how many values are NaN or infinite; 0 for dtypes that cannot hold them."""
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return 0
    # A finite sum of absolute values proves that all are finite, at a third of the cost of counting.
    if tensor.dtype in (torch.float32, torch.float64) and math.isfinite(float(tensor.abs().sum())):
        return 0
    return int((~torch.isfinite(tensor)).sum())


def show(name: str) -> str:
    """Return a foreign name fit for a sentence: quoted, control characters escaped, cut at 80."""
    return repr(name if len(name) <= 80 else name[:77] + "...")


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _open(path: Path, what: str) -> BinaryIO:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise InputError(f"{what} does not exist; check the path.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{what} cannot be read ({getattr(error, 'strerror', error)}).") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"{what} is not a file; expected a .safetensors file.")
    return os.fdopen(descriptor, "rb")


def _read_header(file: BinaryIO, what: str) -> Header:
    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    (length,) = struct.unpack("<Q", start.ljust(8, b"\0"))
    opens_as_pickle = start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    # A header of 640, 896, 1152 or 1408 bytes begins with the same two bytes as a pickle.
    if start.startswith(b"PK\x03\x04") or (opens_as_pickle and length > MAX_HEADER_BYTES):
        raise InputError(
            f"{what} is a pickle (a PyTorch .pt or .pkl file, whatever its name); pickle files can run code "
            "and are not accepted, convert it to .safetensors."
        )
    if len(start) < 8:
        raise InputError(f"{what} is not a safetensors file: it has only {size} bytes.")
    if length > MAX_HEADER_BYTES:
        raise InputError(
            f"{what} is not a safetensors file, or its header is above {MAX_HEADER_BYTES >> 20} MB: "
            f"it claims {length:,} bytes."
        )
    if length < 2 or 8 + length > size:
        raise InputError(f"{what} is cut or not a safetensors file: header of {length:,} bytes in {size:,}.")
    try:
        text = file.read(length).decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{what} is not a safetensors file: the header is not UTF-8.") from None
    if not text.startswith("{"):
        raise InputError(f"{what} is not a safetensors file: the header is not JSON.")
    entries = parse_json(text, what=f"the header of {what}")
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise InputError(f"{what}: the metadata in the header must be strings.")
    if len(entries) > MAX_TENSORS:
        raise InputError(f"{what} holds {len(entries):,} tensors; at most {MAX_TENSORS:,} are accepted.")
    facts = {name: _check_entry(name, entry, what) for name, entry in entries.items()}
    _check_layout(facts, size - 8 - length, what)
    return Header(tensors=facts, metadata=metadata, data_start=8 + length)


def _check_entry(name: str, entry: Any, what: str) -> TensorFacts:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise InputError(f"{what}: the entry of tensor {show(name)} must hold dtype, shape and data_offsets.")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise InputError(
            f"{what}: tensor {show(name)} has dtype {show(str(dtype))}; known: {', '.join(DTYPES)}."
        )
    if not _is_counts(shape) or len(shape) > 16:
        raise InputError(f"{what}: tensor {show(name)} has no valid shape.")
    if not _is_counts(offsets) or len(offsets) != 2:
        raise InputError(f"{what}: tensor {show(name)} has no valid data_offsets.")
    num_bytes = math.prod(shape) * DTYPES[dtype].itemsize
    if offsets[1] - offsets[0] != num_bytes:
        raise InputError(
            f"{what}: tensor {show(name)} of shape {str(shape)[:80]} needs {num_bytes:,} bytes, "
            f"its offsets give {offsets[1] - offsets[0]:,}."
        )
    if num_bytes == 0 and max(shape, default=0) > 2**31:
        raise InputError(f"{what}: tensor {show(name)} has the shape {str(shape)[:80]}, which no model has.")
    return TensorFacts(DTYPES[dtype], tuple(shape), offsets[0], offsets[1])


def _is_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**62 for item in value)


def _check_layout(facts: Mapping[str, TensorFacts], data_bytes: int, what: str) -> None:
    position = 0
    for name, place in sorted(facts.items(), key=lambda item: (item[1].start, item[1].end)):
        if place.start != position:
            kind = "overlaps another tensor" if place.start < position else "leaves a hole before it"
            raise InputError(f"{what}: tensor {show(name)} {kind} in the data.")
        position = place.end
    if position != data_bytes:
        kind = "is cut" if position > data_bytes else "has bytes that belong to no tensor"
        raise InputError(
            f"{what} {kind}: the tensors need {position:,} bytes of data, the file has {data_bytes:,}."
        )


def _read_tensor(file: BinaryIO, header: Header, name: str, what: str) -> torch.Tensor:
    facts = header.tensors[name]
    is_bool = facts.dtype == torch.bool
    tensor = torch.empty(facts.shape, dtype=torch.uint8 if is_bool else facts.dtype)
    if tensor.numel():
        file.seek(header.data_start + facts.start)
        view = memoryview(tensor.reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
        if file.readinto(view) != len(view):  # type: ignore[attr-defined]
            raise InputError(f"{what} was cut while it was read; nothing was taken from it.")
    return tensor.ne(0) if is_bool else tensor


def _is_disk_failure(error: Exception) -> bool:
    return type(error).__name__ == "SafetensorError" and "os error" in str(error).lower()


def _as_os_error(error: Exception) -> OSError:
    """Recover the errno from the text of a safetensors error ("I/O error: ... (os error 28)")."""
    text = str(error).lower()
    digits = "".join(filter(str.isdigit, text[text.find("os error") :]))
    number = int(digits) if digits else 5
    return OSError(number, os.strerror(number))


def metadata_json(data: Mapping[str, Any]) -> dict[str, str]:
    """Pack JSON data into the one string that safetensors metadata can hold, under the key "json"."""
    return {"json": json.dumps(data, allow_nan=False, sort_keys=True)}
