"""Plan files: kept exactly, read strictly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.errors import InputError
from workbench.models import ModelFacts
from workbench.operators import (
    ElementwiseSpec,
    HedgehogSpec,
    HybridSpec,
    LinearSpec,
    OperatorSpec,
    PolynomialSpec,
    RehyatSpec,
    Schedule,
    label,
)
from workbench.planning import from_text, load, load_file, make_plan, parse_short, save

SPECS: tuple[OperatorSpec, ...] = (
    HybridSpec(rate=4),
    HybridSpec(rate=4, stabilizer="rowmax"),
    HybridSpec(rate=4, feature_map=HedgehogSpec()),
    HybridSpec(rate=4, feature_map=PolynomialSpec(degree=1)),
    HybridSpec(rate=4, feature_map=ElementwiseSpec(kind="elu")),
    LinearSpec(),
    LinearSpec(feature_map=ElementwiseSpec(kind="exp", clamp=4.0)),
    RehyatSpec(chunk_frames=1),
    RehyatSpec(chunk_frames=1, overlap_frames=1),
)


def test_labels_tell_specs_apart() -> None:
    labels = [label(spec) for spec in SPECS]
    assert len(set(labels)) == len(labels)
    assert labels[0] == "R4" and labels[5] == "linear" and labels[8] == "T1o1"
    assert labels[2].startswith("R4-hedgehog-")


@pytest.mark.parametrize("spec", SPECS, ids=label)
def test_files_keep_every_operator(micro_facts: ModelFacts, tmp_path: Path, spec: OperatorSpec) -> None:
    plan = make_plan(
        {1: spec}, micro_facts, name="mine", schedule=Schedule(dense_first=2), provenance={"by": "me"}
    )
    save(plan, tmp_path / "plan.json")
    assert load_file(tmp_path / "plan.json", micro_facts) == plan == load(tmp_path / "plan.json", micro_facts)
    listed = json.loads((tmp_path / "plan.json").read_text())["blocks"]
    assert [each["block"] for each in listed] == [0, 1, 2]


def test_a_plan_for_another_model_is_refused(micro_facts: ModelFacts, tmp_path: Path) -> None:
    save(parse_short("1xR4", micro_facts), tmp_path / "p.json")
    larger = micro_facts.model_copy(update={"num_blocks": 9, "name": "big"})
    with pytest.raises(
        InputError, match=r"plan p.json is for micro .3 blocks.* and the model is big .9 blocks"
    ):
        load_file(tmp_path / "p.json", larger)
    other = micro_facts.model_copy(update={"fingerprint": "feed"})
    with pytest.raises(InputError, match="is for other weights"):
        load_file(tmp_path / "p.json", other)
    assert (
        load_file(tmp_path / "p.json", micro_facts.model_copy(update={"fingerprint": ""})).short_name
        == "1xR4"
    )


def text_of(facts: ModelFacts) -> str:
    return json.dumps(json.loads(parse_short("2xR4", facts).model_dump_json()))


def changed(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new, 1)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"schema_version": 1', '"schema_version": 7', "made by a newer version"),
        ('"schema_version": 1', '"schema_version": true', "must be a whole number"),
        ('"schema_version": 1', '"schema_versionn": 1', "did you mean 'schema_version'"),
        ('"rate": 4', '"rate": 4, "rate": 9', "'rate' twice"),
        ('"rate": 4', '"rate": 1', "greater than or equal to 2"),
        ('"rate": 4', '"rate": 4.5', "valid integer"),
        ('"rate": 4', '"rate": true', "valid integer"),
        ('"rate": 4', '"rate": "4"', "valid integer"),
        ('"rate": 4', '"rate": NaN', "finite"),
        ('"rate": 4', '"rate": 1e999', "finite"),
        ('"rate": 4', '"rate": ' + "9" * 5000, "digits"),
        ('"kind": "hybrid"', '"kind": "sparse"', "sparse"),
        ('"block": 1', '"block": 7', "lists every block"),
        ('"start_scale": 0.01', '"start_scale": -1.0', "greater than 0"),
    ],
)
def test_damaged_plans_are_refused(micro_facts: ModelFacts, old: str, new: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        from_text(changed(text_of(micro_facts), old, new), micro_facts)
    assert "\n" not in str(caught.value)


def test_every_prefix_is_refused(micro_facts: ModelFacts) -> None:
    text = text_of(micro_facts)
    for length in range(len(text)):
        with pytest.raises(InputError):
            from_text(text[:length], micro_facts)


def test_bom_is_accepted_and_other_encodings_are_not(micro_facts: ModelFacts, tmp_path: Path) -> None:
    text, path = text_of(micro_facts), tmp_path / "p.json"
    path.write_bytes(text.encode("utf-8-sig"))
    assert load_file(path, micro_facts).short_name == "2xR4"
    for data, words in (
        (text.encode("utf-16"), "not UTF-8"),
        (b"[" * 200_000, "nested too deeply"),
        (b" ", "empty"),
    ):
        path.write_bytes(data)
        with pytest.raises(InputError, match=words):
            load_file(path, micro_facts)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 10_000), junk=st.text(max_size=3))
def test_fuzzed_plans_never_escape_as_tracebacks(micro_facts: ModelFacts, position: int, junk: str) -> None:
    text = text_of(micro_facts)
    place = position % len(text)
    try:
        from_text(text[:place] + junk + text[place + len(junk) :], micro_facts)
    except InputError as error:
        assert str(error).endswith((".", "?"))
