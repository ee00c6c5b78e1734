"""A transformer in one safetensors file, in either naming, in its folder or beside it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from workbench.errors import InputError
from workbench.models import load_model, model_facts
from workbench.models.single_file import known_architecture

WEIGHTS = "diffusion_pytorch_model.safetensors"
AUTHORS_NAMES = (
    (r"condition_embedder\.time_embedder\.linear_1", "time_embedding.0"),
    (r"condition_embedder\.time_embedder\.linear_2", "time_embedding.2"),
    (r"condition_embedder\.text_embedder\.linear_1", "text_embedding.0"),
    (r"condition_embedder\.text_embedder\.linear_2", "text_embedding.2"),
    (r"condition_embedder\.time_proj", "time_projection.1"),
    (r"^scale_shift_table", "head.modulation"),
    (r"^proj_out", "head.head"),
    (r"scale_shift_table", "modulation"),
    (r"\.norm2\.", ".norm3."),
    (r"ffn\.net\.0\.proj", "ffn.0"),
    (r"ffn\.net\.2", "ffn.2"),
    (r"attn1\.", "self_attn."),
    (r"attn2\.", "cross_attn."),
    (r"to_out\.0", "o"),
    (r"\.to_([qkv])\.", r".\1."),
)


@pytest.fixture
def folder(micro_model_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(micro_model_folder, tmp_path / "base"))


def changed(folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a finetune: those of the folder, a little different."""
    tensors = load_file(folder / "transformer" / WEIGHTS)
    return {name: tensor + 0.01 for name, tensor in tensors.items()}


def in_authors_names(tensors: dict[str, torch.Tensor], *, prefix: str) -> dict[str, torch.Tensor]:
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, new in AUTHORS_NAMES:
            name = re.sub(pattern, new, name)
        renamed[prefix + name] = tensor
    return renamed


@pytest.mark.parametrize("naming", ["diffusers", "authors", "authors with prefix"])
def test_a_file_takes_the_transformers_place(folder: Path, naming: str) -> None:
    tensors = changed(folder)
    file = folder / "finetuned.safetensors"
    prefix = "model.diffusion_model." if naming.endswith("prefix") else ""
    save_file(tensors if naming == "diffusers" else in_authors_names(tensors, prefix=prefix), file)
    model = load_model(str(file), device="cpu")
    assert model.name == "finetuned" and model.facts.source == str(file) and model.folder == folder
    state = model.transformer.state_dict()
    assert state.keys() == tensors.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in tensors.items())
    facts, base = model_facts(str(file)), model_facts(str(folder))
    assert facts.fingerprint == model.fingerprint != base.fingerprint
    assert facts.num_blocks == base.num_blocks


def test_half_precision_of_a_file_keeps_norms_in_float32(folder: Path) -> None:
    file = folder / "finetuned.safetensors"
    save_file(changed(folder), file)
    of_file = load_model(str(file), device="cpu", dtype="bfloat16").transformer.state_dict()
    of_folder = load_model(str(folder), device="cpu", dtype="bfloat16").transformer.state_dict()
    assert {name: tensor.dtype for name, tensor in of_file.items()} == {
        name: tensor.dtype for name, tensor in of_folder.items()
    }


def test_files_that_do_not_fit_are_named(folder: Path, tmp_path: Path) -> None:
    file = folder / "finetuned.safetensors"
    good = changed(folder)
    lacking = {name: tensor for name, tensor in good.items() if name != "proj_out.bias"}
    other = {**good, "proj_out.bias": torch.zeros(7)}
    for tensors, words in (
        (lacking, "finetuned.safetensors lacks the tensor 'proj_out.bias'; it is another model, or cut"),
        ({**good, "vace_blocks.0.x": torch.zeros(1)}, "has a tensor 'vace_blocks.0.x' that the transformer"),
        (other, r"'proj_out.bias' of finetuned.safetensors has shape \[7\], expected \["),
    ):
        save_file(tensors, file)
        with pytest.raises(InputError, match=words):
            load_model(str(file), device="cpu")
    file.write_bytes(b"\x80\x04pickle")
    with pytest.raises(InputError, match=r"finetuned.safetensors"):
        load_model(str(file), device="cpu")
    alone = tmp_path / "deep" / "alone" / "small.safetensors"
    alone.parent.mkdir(parents=True)
    save_file(good, alone)
    with pytest.raises(InputError, match=r"small.safetensors has 3 blocks of width 24, which is no model kn"):
        load_model(str(alone), device="cpu")
    save_file({"something": torch.zeros(1)}, alone)
    with pytest.raises(InputError, match=r"small.safetensors holds no Wan transformer; give the diffusers"):
        load_model(str(alone), device="cpu")


def test_a_file_of_a_known_model_asks_for_its_other_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    alone = tmp_path / "deep" / "alone" / "community.safetensors"
    alone.parent.mkdir(parents=True)
    tensors = {f"blocks.{block}.modulation": torch.zeros(1) for block in range(30)}
    tensors["blocks.0.ffn.0.weight"] = torch.zeros(8960, 1536, dtype=torch.uint8)
    tensors["patch_embedding.weight"] = torch.zeros(2, 16, 1, 2, 2)
    save_file(tensors, alone)
    assert known_architecture(alone).name == "wan2.1-t2v-1.3b"
    words = "is a transformer of the kind wan2.1-t2v-1.3b, whose other parts are needed: .*workbench download"
    with pytest.raises(InputError, match=words):
        load_model(str(alone), device="cpu")
