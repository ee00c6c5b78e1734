"""The benchmark of whole transformers runs from end to end on a tiny one, so that no typo costs GPU time."""

import json

import pytest

from workbench.benchmarks import wan_forward, wan_tables


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    path = tmp_path_factory.mktemp("benchmark") / "wan.json"
    parts = [part for part in wan_forward.PARTS if part != "compiled"]
    options = ["--device", "cpu", "--tiny", "--repeats", "1", "--out", str(path)]
    wan_forward.main([*options, "--parts", ",".join(parts[:-1])])
    wan_forward.main([*options, "--parts", parts[-1], "--append"])
    return json.loads(path.read_text())


def test_rows_have_the_published_format(result):
    assert {"hardware", "versions", "command", "date", "rows"} <= result.keys()
    keys = {"model", "tokens", "plan", "mode", "dense_mode", "ms", "dense_ms", "ratio"}
    assert all(set(row) == keys for row in result["rows"])
    found = {(row["model"], row["plan"], row["mode"], row["dense_mode"]) for row in result["rows"]}
    for plan in ("15xR2", "25xR4", "30xR8", "30xlinear"):
        for modes in (("eager", "eager"), ("fused", "fused"), ("fused", "eager")):
            assert ("tiny wan2.1-t2v-1.3b", plan, *modes) in found
    assert ("tiny wan2.2-ti2v-5b", "30xT3o1", "eager", "eager") in found


def test_the_split_of_a_block_adds_up(result):
    for row in result["block_split"]:
        parts = ("attention_ms", "cross_attention_ms", "products_ms", "elementwise_ms")
        assert sum(row[part] for part in parts) == pytest.approx(row["block_ms"], abs=0.01)


def test_numerics_hold(result):
    (row,) = result["numerics"]
    assert row["softmax_plan_bit_equal"] is True
    assert row["R8_finite"] is True
    assert row["fused_error"] < 1e-4
    assert row["R8_error_in_eps"] < 100


def test_every_part_left_rows(result):
    assert {(row["plan"], row["mode"]) for row in result["generation"]} == {
        (plan, mode) for plan in ("dense", "30xR8") for mode in ("eager", "fused")
    }
    assert {row["query_stride"] for row in result["capture"]} == {1, 4}
    assert result["bank_update"][0]["stopped"] == 0
    assert {row["operator"] for row in result["lengths"]} == {"dense", "R8", "ReHyAt T3o1"}


def test_the_page_shows_every_part(result, tmp_path):
    source, page = tmp_path / "wan.json", tmp_path / "wan.md"
    source.write_text(json.dumps(result))
    wan_tables.main(["--results", str(source), "--page", str(page)])
    text = page.read_text()
    assert text.count("tiny wan2.1-t2v-1.3b") > 12
    for title in (
        "Forward",
        "What a dense block spends",
        "Denoising",
        "Capturing",
        "One update",
        "Over clip",
    ):
        assert f"## {title}" in text
    assert source.with_suffix(".svg").read_text().count("<polyline") == 3


def test_rows_of_another_machine_are_not_mixed(result, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(json.dumps({**result, "hardware": {"device": "another"}}))
    with pytest.raises(SystemExit, match="other hardware"):
        wan_forward.main(["--device", "cpu", "--tiny", "--append", "--out", str(path)])
