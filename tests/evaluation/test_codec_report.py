"""What of a scene survives the codec: a command, a figure for clips before and after it."""

from __future__ import annotations

import json
from pathlib import Path

from workbench.evaluation.codec_report import main


def test_the_report_holds_truth_and_codec_side_by_side(tmp_path: Path) -> None:
    out = tmp_path / "results" / "codec.json"
    main(["--num", "3", "--out", str(out)])
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["clips"] == 3 and {"date", "command", "hardware", "versions", "seconds"} <= found.keys()
    assert found["truth"]["adherence"]["colour"] == found["codec"]["adherence"]["colour"] == 1
    for counts in found["pairs"].values():
        assert 0 < counts["asked"] <= 3 and max(counts["truth"], counts["codec"]) <= counts["asked"]
