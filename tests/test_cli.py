"""The command line as a user meets it: exit codes, one sentence for bad input, one JSON document."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


def test_cost_prints_the_published_figures_without_weights(call) -> None:  # type: ignore[no-untyped-def]
    words = "cost --model wan2.1-t2v-1.3b --frames 81 --height 480 --width 832 --plan 15xR2 --json"
    code, out, err = call(*words.split())
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert document["tokens"] == 32760
    assert document["block_tflop"] == pytest.approx(9.433, abs=5e-4)
    assert document["dit_ratio"] == pytest.approx(0.833, abs=5e-4)
    converted = [block for block, ratio in document["block_ratio"].items() if ratio < 1]
    assert converted == [str(block) for block in range(1, 30, 2)]


@pytest.mark.parametrize("rate", ["R4", "4", "r4"])
def test_a_rate_may_be_written_in_any_of_its_forms(call, rate: str) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = call("plan", "--blocks", "0,2,5-7", "--rate", rate, "--json")
    document = json.loads(out)
    assert code == 0
    assert [each["block"] for each in document["blocks"]] == list(range(10))
    assert [each["block"] for each in document["blocks"] if each["operator"]["kind"] == "hybrid"] == [
        0,
        2,
        5,
        6,
        7,
    ]
    assert Path(document["plan"]).is_file()
    assert document["cost"]["attention_ratio"] < 1


def test_an_assigned_plan_is_accepted_where_a_plan_is_wanted(call) -> None:  # type: ignore[no-untyped-def]
    _, out, _ = call("plan", "--assign", "0-3:softmax,4-7:R4,8-:linear", "--json")
    planned = json.loads(out)
    code, out, _ = call("cost", "--plan", planned["plan"], "--json")
    assert code == 0
    assert json.loads(out)["attention_ratio"] == planned["cost"]["attention_ratio"]


BAD_INPUT = {
    "empty prompt": (["generate", "--prompt", " "], "prompt"),
    "unknown word": (["generate", "--prompt", "a red bal"], "'bal' (near: ball"),
    "frames": (["generate", "--prompt", "a red ball", "--frames", "16"], "13 and 17"),
    "height": (["generate", "--prompt", "a red ball", "--height", "100"], "96 and 112"),
    "no steps": (["generate", "--prompt", "a red ball", "--steps", "0"], "steps"),
    "half a step": (["generate", "--prompt", "a red ball", "--steps", "2.5"], "--steps"),
    "unknown model": (["generate", "--prompt", "a red ball", "--model", "embeded"], "embedded"),
    "no such block": (["measure", "--blocks", "99"], "0 to 9"),
    "rate zero": (["measure", "--rates", "0"], "'0'"),
    "rate negative": (["plan", "--blocks", "1", "--rate", "-4"], "'-4'"),
    "rate fractional": (["measure", "--rates", "2.5"], "'2.5'"),
    "rate above a frame": (["measure", "--rates", "R300"], "R256"),
    "too many blocks": (["cost", "--plan", "11xR4"], "10"),
    "no such plan": (["cost", "--plan", "plan-that-is-not.json"], "plan-that-is-not.json"),
    "plan without bank": (["compare", "--prompt", "a red ball", "--plan", "4xR4"], "bank"),
    "no such bank": (["surgery", "--plan", "4xR4", "--bank", "nowhere"], "nowhere"),
    "no such preset": (["study", "--preset", "fast"], "quickstart"),
    "step outside": (["capture", "--prompt", "a red ball", "--steps", "4", "--at-steps", "9"], "0 to 3"),
    "missing option": (["generate"], "--prompt"),
    "no such command": (["frobnicate"], "frobnicate"),
    "no such job": (["jobs", "show", "20000101-nothing"], "20000101-nothing"),
    "two ways to plan": (["plan", "--short", "4xR4", "--assign", "0:R4"], "one way"),
}


@pytest.mark.parametrize("words, named", BAD_INPUT.values(), ids=BAD_INPUT.keys())
def test_bad_input_is_one_sentence_and_leaves_no_job(call, words: list[str], named: str) -> None:  # type: ignore[no-untyped-def]
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    assert named in err
    assert err.count("\n") == 1 and "Traceback" not in err
    code, out, _ = call("jobs", "list", "--json")
    assert json.loads(out) == []


def test_an_unwritable_workspace_is_named(call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "workspace").write_text("a file, not a folder")
    code, _, err = call("plan", "--short", "2xR4")
    assert code == 2
    assert "workspace" in err.lower() and err.count("\n") == 1
