"""Loading: what is found, what is refused, each refusal one sentence within seconds and without a path."""

from __future__ import annotations

import json
import shutil
import struct
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import save_micro_model
from workbench.errors import InputError
from workbench.models import ModelFacts, adapter_of, load_model, model_facts
from workbench.models.loader import check_versions, choose_device

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(micro_model_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(micro_model_folder, tmp_path / "copied"))


def refuse(name: str | Path, words: str, **options: Any) -> None:
    started = time.monotonic()
    with pytest.raises(InputError, match=words) as caught:
        load_model(str(name), device="cpu", **options)
    assert time.monotonic() - started < 25
    assert (
        "\n" not in str(caught.value)
        and "/tmp" not in str(caught.value)
        and "Traceback" not in str(caught.value)
    )


def test_a_folder_loads(micro_model_folder: Path, micro_facts: ModelFacts) -> None:
    model = load_model(str(micro_model_folder), device="cpu")
    assert (
        model.name == "micro" and model.facts == micro_facts and model.fingerprint == micro_facts.fingerprint
    )
    assert model.device.type == "cpu" and model.transformer.dtype == torch.float32
    assert model.adapter.shape(model.transformer) == (3, 2, 12)


def test_two_loads_are_bit_equal_and_dtype_is_kept(micro_model_folder: Path) -> None:
    first, second = (
        load_model(str(micro_model_folder), device="cpu").transformer.state_dict() for _ in range(2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    half = load_model(str(micro_model_folder), device="cpu", dtype="bfloat16")
    assert half.transformer.dtype == torch.bfloat16
    vae: Any = half.pipeline.vae
    assert vae.dtype == torch.float32
    kept: Any = half.transformer
    assert kept.scale_shift_table.dtype == torch.float32


def test_fingerprints_tell_weights_apart(folder: Path, micro_facts: ModelFacts) -> None:
    assert model_facts(str(folder)).fingerprint == micro_facts.fingerprint
    file = folder / "transformer" / WEIGHTS
    tensors = load_file(file)
    tensors["proj_out.bias"] += 1
    save_file(tensors, file)
    assert model_facts(str(folder)).fingerprint != micro_facts.fingerprint


def test_sharded_weights_load(folder: Path, micro_model_folder: Path) -> None:
    whole = load_model(str(micro_model_folder), device="cpu")
    for old in (folder / "transformer").glob("*.safetensors"):
        old.unlink()
    transformer: Any = whole.transformer
    transformer.save_pretrained(folder / "transformer", max_shard_size="20KB")
    shards = sorted((folder / "transformer").glob("*-of-*.safetensors"))
    assert len(shards) > 1
    loaded = load_model(str(folder), device="cpu").transformer.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in transformer.state_dict().items())
    shards[0].unlink()
    refuse(
        folder, f"'transformer' lacks 1 of {len(shards)} weight files, first .*00001-of-.*finish the download"
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("embeded", "no model 'embeded', neither a folder nor a known name; did you mean 'embedded'"),
        ("zzz", "known: embedded, wan2.1-t2v-1.3b"),
        ("", "empty"),
        ("a\0b", "no file name"),
        (
            "nobody/nothing",
            "nobody/nothing is not on this machine; fetch it with `workbench download nobody/nothing --all",
        ),
        ("wan2.1-t2v-14b", "wan2.1-t2v-14b is not on this machine"),
        ("two/many/parts", "no model"),
        ("bad name/x y", "no model"),
    ],
)
def test_names_that_lead_nowhere(
    name: str, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    refuse(name, words)


def cached(cache: Path, source: Path, repository: str) -> Path:
    """Lay a model out as the hub's cache does; return its blobs folder."""
    root = cache / f"models--{repository.replace('/', '--')}"
    shutil.copytree(source, root / "snapshots" / "abc")
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("abc")
    (root / "blobs").mkdir()
    return root / "blobs"


def test_a_cached_model_loads_offline(
    micro_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    blobs = cached(tmp_path, micro_model_folder, "someone/micro")
    model = load_model("someone/micro", device="cpu")
    assert model.name == "someone/micro" == model.facts.source and model.facts.num_blocks == 3
    (blobs / "123.incomplete").write_bytes(b"12345")
    assert load_model("someone/micro", device="cpu").fingerprint == model.fingerprint
    snapshot = tmp_path / "models--someone--micro" / "snapshots" / "abc"
    (snapshot / "transformer" / WEIGHTS).unlink()
    refuse(
        "someone/micro",
        "only partly here .'transformer' is not there, an unfinished file has 5 bytes, 1 in all.; fetch it",
    )
    (snapshot / "model_index.json").unlink()
    refuse("someone/micro", "only partly here .model_index.json is missing.; fetch it with `workbench downl")


def test_wrong_pipelines_are_named(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    for changes, words in (
        ({"_class_name": "LTXPipeline"}, "says 'LTXPipeline'; supported: WanPipeline"),
        (
            {"_class_name": "WanVACEPipeline"},
            "says 'WanVACEPipeline'; supported: .* surgery.linearize, which",
        ),
        ({"transformer": ["evil", "Model"]}, "wants code of its own for 'transformer'"),
        ({"_class_name": None}, "says None; supported"),
    ):
        (folder / "model_index.json").write_text(json.dumps(index | changes))
        refuse(folder, words)
    (folder / "model_index.json").unlink()
    refuse(folder, "copied is not a diffusers folder .model_index.json is missing.")
    refuse(folder / "transformer", "holds one component and not a pipeline")
    refuse(folder / "transformer" / "config.json", "config.json is a file; give the diffusers folder")


def test_incomplete_folders_are_named(folder: Path) -> None:
    weights = folder / "transformer" / WEIGHTS
    whole = weights.read_bytes()
    for damage, words in (
        (whole[:-100], "transformer.*is cut"),
        (whole[:40], "transformer.*cut"),
        (b"", "not a safetensors file"),
        (struct.pack("<Q", 2**62) + b"x" * 99, "not a safetensors file"),
        (b"\x80\x04pickle", "pickle"),
    ):
        weights.write_bytes(damage)
        refuse(folder, words)
    weights.unlink()
    refuse(folder, "'transformer' holds no weights")
    (folder / "transformer" / "diffusion_pytorch_model.bin").write_bytes(b"x")
    refuse(folder, "pickle files, which are not accepted; convert to .safetensors")
    shutil.rmtree(folder / "vae")
    weights.write_bytes(whole)
    refuse(folder, "copied: 'vae' is missing from the folder")


def test_a_lying_configuration_names_the_tensor(folder: Path) -> None:
    file = folder / "transformer" / "config.json"
    config = json.loads(file.read_text())
    for changes, words in (
        ({"num_layers": 5}, "asks for the tensor 'blocks.3.*', which its weights lack"),
        ({"ffn_dim": 64}, r"The tensor '.*ffn.*' of copied has shape .* its configuration says"),
        ({"_class_name": "LTXVideoTransformer3DModel"}, "supported: WanTransformer3DModel"),
    ):
        file.write_text(json.dumps(config | changes))
        refuse(folder, words)
    file.write_text("{")
    refuse(folder, "not valid JSON")


@pytest.mark.parametrize("component", ["text_encoder", "vae"])
def test_missing_weights_are_never_drawn_at_random(folder: Path, component: str) -> None:
    file = next((folder / component).glob("*.safetensors"))
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith(("wo.weight", "conv_out.bias")))
    save_file(
        {key: tensor for key, tensor in tensors.items() if key != name}, file, metadata={"format": "pt"}
    )
    refuse(folder, f"asks for the tensor '{name}', which its weights lack; fetch the model again")


def test_stated_defaults_are_checked(folder: Path) -> None:
    (folder / "workbench.json").write_text(json.dumps({"fps": 0}))
    refuse(folder, "workbench.json: 'fps'")


def test_the_embedded_model_is_known_by_name(
    untrained_model_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("workbench.models.embedded.default_folder", lambda: untrained_model_folder)
    model = load_model("embedded", device="cpu")
    assert (model.name, model.facts.source, model.facts.num_blocks) == ("embedded", "embedded", 10)
    assert model.facts == model_facts("embedded") and model.fingerprint
    monkeypatch.setattr("workbench.models.embedded.default_folder", lambda: tmp_path)
    refuse("embedded", "weights of the embedded model are missing from this installation")
    assert model_facts("embedded").fingerprint == ""


def test_old_libraries_are_named_with_both_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda package: "0.35.2")
    with pytest.raises(InputError, match=r"diffusers 0\.35\.2 is installed and 0\.42 or newer is needed"):
        check_versions()


def test_devices_and_dtypes_are_choices(micro_model_folder: Path) -> None:
    with pytest.raises(InputError, match="Device must be auto, cpu or cuda, got 'tpu'"):
        load_model(str(micro_model_folder), device="tpu")  # type: ignore[arg-type]
    refuse(micro_model_folder, "Dtype must be auto, float32", dtype="int8")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="No CUDA device"):
            choose_device("cuda")


def test_only_known_transformers_have_an_adapter() -> None:
    with pytest.raises(InputError, match="Linear is not a transformer that the workbench knows"):
        adapter_of(torch.nn.Linear(1, 1))


def test_other_seeds_are_other_models(tmp_path: Path, micro_facts: ModelFacts) -> None:
    other = save_micro_model(tmp_path / "other", seed=1)
    assert model_facts(str(other)).fingerprint != micro_facts.fingerprint
