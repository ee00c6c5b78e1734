"""The workspace: artefacts are whole or absent, documents are read strictly, litter goes, sentences help."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.demo import DemoConfig
from tests.jobs.matrices import small_disk, unmount
from workbench.errors import InputError
from workbench.workspace import (
    DiskFull,
    Workspace,
    disk_error,
    new_id,
    parse_json,
    read_json,
    write_json,
)

CHECKOUT = Path(__file__).parents[1]
PLAN = {
    "version": 1,
    "model": "embedded",
    "blocks": [{"block": number, "operator": {"kind": "hybrid", "rate": 4}} for number in range(10)],
    "note": "ein Plan — für später",
}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "a b é")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Workspace]:
    """A workspace on a disk of two megabytes."""
    place = tmp_path / "small"
    if not small_disk(place, megabytes=2):
        pytest.skip("mounting a small disk is not allowed here")
    try:
        yield Workspace.open(place)
    finally:
        unmount(place)


def test_an_artefact_appears_only_when_it_is_whole(workspace: Workspace) -> None:
    with workspace.new_folder("banks", name="My <b>bank</b>") as folder:
        (folder.path / "sub").mkdir()
        (folder.path / "sub" / "data.bin").write_bytes(b"123")
        assert not folder.final.exists()
        assert workspace.sweep() == [], "a folder being written is no litter"
    assert (folder.final / "sub" / "data.bin").read_bytes() == b"123"
    assert workspace.relative(folder.final) == f"banks/{folder.final.name}"
    with pytest.raises(KeyError), workspace.new_folder("banks") as failed:
        (failed.path / "half").write_text("x")
        raise KeyError
    assert [entry.name for entry in workspace.folder("banks").iterdir()] == [folder.final.name]


def test_what_a_killed_writer_left_is_swept(workspace: Workspace) -> None:
    code = (
        "import sys, time; from workbench.workspace import Workspace\n"
        "with Workspace.open(sys.argv[1]).new_folder('clips', name='x') as folder:\n"
        "    (folder.path / 'half').write_text('x'); print('writing', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(workspace.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=CHECKOUT) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        assert workspace.sweep() == []
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
    fresh, old = workspace.root / "plans" / ".a.json.tmp", workspace.root / "plans" / ".b.json.tmp"
    for file in (fresh, old):
        file.write_text("x")
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    outside = workspace.root.parent / "outside"
    outside.mkdir()
    (workspace.root / "banks" / ".tmp-link").symlink_to(outside)
    swept = workspace.sweep()
    assert len(swept) == 2
    assert fresh.exists()
    assert not old.exists()
    assert outside.exists()
    assert list(workspace.folder("clips").iterdir()) == []


def test_ids_sort_by_time_and_never_become_paths(workspace: Workspace) -> None:
    for name in ("../../x", "/abs", "CON", ".", "..", "~", "x" * 300, "😀", "a\u202eb", "tab\tand\nline", ""):
        made = new_id(name)
        assert "/" not in made
        assert not made.startswith(".")
        assert len(made) < 80
    assert len({new_id("same") for _ in range(200)}) > 190


def test_two_artefacts_never_take_one_id(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(["same", "same", "other", "same", "other", "third"])
    monkeypatch.setattr("workbench.workspace.new_id", lambda name="": next(drawn))
    with workspace.new_folder("clips") as first, workspace.new_folder("clips") as second:
        (first.path / "whose").write_text("first")
        (second.path / "whose").write_text("second")
    with workspace.new_folder("clips") as third:
        (third.path / "whose").write_text("third")
    made = {folder.name: (folder / "whose").read_text() for folder in workspace.folder("clips").iterdir()}
    assert made == {"same": "first", "other": "second", "third": "third"}


def test_a_document_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_json(path, PLAN)
    assert read_json(path, what="plan") == PLAN
    with pytest.raises(InputError, match="not valid Unicode"):
        write_json(path, {"name": "\ud800"})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"loss": float("nan")})
    assert read_json(path, what="plan") == PLAN
    assert [entry.name for entry in tmp_path.iterdir()] == ["plan.json"]


def test_every_prefix_of_a_plan_is_refused_with_its_place(tmp_path: Path) -> None:
    text = json.dumps(PLAN, ensure_ascii=False).encode()
    path = tmp_path / "plan.json"
    for length in range(len(text)):
        path.write_bytes(text[:length])
        with pytest.raises(InputError) as caught:
            read_json(path, what="plan 'mine'")
        sentence = str(caught.value)
        assert sentence.startswith("plan 'mine' is ")
        assert any(words in sentence for words in ("empty", "line 1, column", "not UTF-8"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        (" \n\t", "is empty"),
        ('{"steps":10,"steps":1000000}', "states 'steps' twice"),
        ('{"a":{"b":1,"b":1}}', "states 'b' twice"),
        ('{"lr":NaN}', "holds NaN"),
        ('{"lr":-Infinity}', "holds -Infinity"),
        ('{"lr":1e400}', "1e400, which is not a finite number"),
        ("[" * 200_000, "nested too deeply"),
        ('{"seed":' + "9" * 5000 + "}", "too many digits"),
        ("[1, 2]", "must be a JSON object, got list"),
        ('{"a" 1}', "line 1, column 6"),
    ],
)
def test_documents_are_read_strictly(text: str, words: str) -> None:
    with pytest.raises(InputError, match=r"^plan ") as caught:
        parse_json(text, what="plan")
    assert words in str(caught.value)


def test_encodings(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(b"\xef\xbb\xbf" + b'{"a": 1}')
    assert read_json(path, what="plan") == {"a": 1}
    for content in ('{"a": 1}'.encode("utf-16"), b'{"a": "\xff"}'):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"not UTF-8|not valid JSON"):
            read_json(path, what="plan")
    path.write_bytes(b" " * (17 * 1024 * 1024))
    with pytest.raises(InputError, match="larger than 16 MB"):
        read_json(path, what="plan")
    with pytest.raises(InputError, match="does not exist"):
        read_json(tmp_path / "none", what="plan")


def fuzz_configs(*, rounds: int, seed: int) -> dict[str, int]:
    """Change a good configuration at random; it is accepted as it stands or refused in one sentence."""
    chance = random.Random(seed)
    odd: list[Any] = [
        None, True, -1, 0, 2**80, 1e-300, -0.5, 2.5, "abc", "10", "", "\ud800", "\0", "x" * 10_000, [], {},
        [[[]]],         {"a": 1}, float("nan"), float("inf"), "<img src=x>",
    ]  # fmt: skip
    good = DemoConfig().model_dump(mode="json")
    counts = {"accepted": 0, "refused": 0}
    for _ in range(rounds):
        config = dict(good)
        for _ in range(chance.randrange(1, 4)):
            name = chance.choice([*good, "stepz", "lerning_rate", "", "__class__", "x" * 500])
            if chance.random() < 0.2:
                config.pop(name, None)
            else:
                config[name] = chance.choice(odd)
        try:
            accepted = DemoConfig.parse(config, what="The configuration")
            assert accepted.model_dump(mode="json").items() >= config.items()
            counts["accepted"] += 1
        except InputError as error:
            assert str(error).startswith("The configuration")
            assert "\n" not in str(error)
            assert len(str(error)) < 1000
            counts["refused"] += 1
    return counts


def test_a_thousand_fuzzed_configurations_are_accepted_as_they_stand_or_refused() -> None:
    counts = fuzz_configs(rounds=1000, seed=0)
    assert counts["accepted"] + counts["refused"] == 1000
    assert counts["refused"] > 500


def test_a_full_disk_leaves_what_was_there_and_is_named(small: Workspace) -> None:
    plan = small.folder("plans") / "mine.json"
    write_json(plan, PLAN)
    with pytest.raises(DiskFull, match=r"in 'banks' .*MB are free there"):  # noqa: SIM117
        with small.new_folder("banks", name="big") as folder:
            (folder.path / "data.bin").write_bytes(b"\1" * 4_000_000)
    assert list(small.folder("banks").iterdir()) == []
    with pytest.raises(DiskFull, match=r"No room for 'mine.json' in 'plans' .*needs 4\.0 MB"):
        write_json(plan, {"text": "x" * 4_000_000})
    assert read_json(plan, what="plan") == PLAN
    assert [entry.name for entry in small.folder("plans").iterdir()] == ["mine.json"]


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"Workspace 'under' cannot be written .*choose a writable folder"):
        Workspace.open(tmp_path / "file" / "under")
    with pytest.raises(InputError, match=r"Cannot write 'x\.json'"):
        write_json(tmp_path / "file" / "x.json", {})


def test_the_sentence_for_a_failed_write() -> None:
    place = Path("/nowhere/workspace/banks/x")
    full = disk_error(place, OSError(errno.ENOSPC, "No space left on device"), needed=412_000_000)
    assert isinstance(full, DiskFull)
    assert full.needed == 412_000_000
    assert "needs 412.0 MB" in str(full)
    assert "/nowhere" not in str(full)
    refused = disk_error(place, OSError(errno.EROFS, "Read-only file system"))
    assert not isinstance(refused, DiskFull)
    assert "Read-only file system" in str(refused)


def test_a_workspace_can_be_moved(tmp_path: Path) -> None:
    first = Workspace.open(tmp_path / "here")
    with first.new_folder("clips") as folder:
        (folder.path / "a").write_text("x")
    kept = first.relative(folder.final)
    first.root.rename(tmp_path / "there")
    assert (Workspace.open(tmp_path / "there").root / kept / "a").read_text() == "x"
