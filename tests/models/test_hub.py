"""Downloads over real HTTP from a hub on this machine: whole, cut, gated, silent, gone; one sentence each."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.models.fake_hub import REPOSITORY, REVISION, serve
from workbench.errors import InputError
from workbench.models import load_model, model_facts, resolve_folder

PROMISE = 5.0
COMMAND = "import sys; from workbench.cli import main; sys.argv[0] = 'workbench'; main()"


def workbench(home: Path, url: str, *arguments: str) -> subprocess.Popen[str]:
    """Start the command line with a hub and a cache of its own, as a user's shell would."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGINGFACE"))}
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments],
        env={**kept, "HF_HOME": str(home), "HF_ENDPOINT": url, "HF_HUB_DISABLE_TELEMETRY": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and offline mode as the command line sets it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecretsecret")
    return tmp_path / "hub"


def point_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point the hub's client, which read HF_ENDPOINT when it was imported, at another address."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)


def refuse(name: str, words: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask a hub for a model; the answer is one sentence within five times the promise, without the token."""
    point_at(url, monkeypatch)
    started = time.monotonic()
    with pytest.raises(InputError, match=words) as caught:
        resolve_folder(name, allow_network=True)
    assert time.monotonic() - started < 5 * PROMISE
    assert "\n" not in str(caught.value) and "hf_secret" not in str(caught.value)


def test_the_command_fetches_only_when_allowed_and_the_model_is_then_there_offline(
    micro_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(micro_model_folder) as hub:
        before = workbench(tmp_path, hub.url, "download", REPOSITORY)
        sentence = before.communicate(timeout=120)[1]
        assert before.returncode == 2 and hub.requests == []
        advice = f"fetch it with `workbench download {REPOSITORY} --allow-network`"
        assert sentence.startswith(f"{REPOSITORY} is not on this machine; {advice}")
        fetching = workbench(tmp_path, hub.url, "download", REPOSITORY, "--allow-network", "--json")
        output, errors = fetching.communicate(timeout=120)
        assert fetching.returncode == 0, errors
    document = json.loads(output)
    assert document["model"] == REPOSITORY
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert resolve_folder(REPOSITORY) == Path(document["folder"])
    model = load_model(REPOSITORY, device="cpu")
    assert model.fingerprint == document["fingerprint"] == model_facts(str(micro_model_folder)).fingerprint


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("gated", f"^Access to {REPOSITORY} is denied by the hub; accept its terms there"),
        ("broken", f"^{REPOSITORY} could not be fetched: the hub answered 500; try later.$"),
        ("silent", f"^{REPOSITORY} is not on this machine and the hub cannot be reached; the embedded model"),
        ("nonsense", f"^{REPOSITORY} could not be fetched: the hub's answer makes no sense.$"),
    ],
)
def test_a_hub_that_refuses(
    behaviour: str, words: str, micro_model_folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(micro_model_folder, behaviour) as hub:
        refuse(REPOSITORY, words, hub.url, monkeypatch)
    assert not cache.exists() or not any(cache.rglob("*.safetensors"))


def test_no_network(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}"
        words = (
            "^wan2.1-t2v-1.3b is not on this machine and the hub cannot be reached; the embedded model still"
        )
        refuse("wan2.1-t2v-1.3b", words, closed, monkeypatch)


def test_no_such_model(micro_model_folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(micro_model_folder) as hub:
        words = "^The hub has no model 'nobody/nothing', or it is private"
        refuse("nobody/nothing", words, hub.url, monkeypatch)


def test_another_pipeline_or_a_full_disk_is_found_before_weights_are_fetched(
    micro_model_folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path(shutil.copytree(micro_model_folder, tmp_path / "other"))
    index = json.loads((other / "model_index.json").read_text())
    (other / "model_index.json").write_text(json.dumps(index | {"_class_name": "LTXPipeline"}))
    with serve(other) as hub:
        words = f"^model_index.json of {REPOSITORY} says 'LTXPipeline'; supported: WanPipeline; nothing was f"
        refuse(REPOSITORY, words, hub.url, monkeypatch)
        assert not any(path.endswith(".safetensors") for path in hub.requests)
    with serve(micro_model_folder) as hub:
        shutil.rmtree(cache)
        hub.claimed_bytes = 10**18
        words = r"needs [\d,]+\.\d GB more in the hub's cache, [\d,]+\.\d GB are free; free some space"
        refuse(REPOSITORY, words, hub.url, monkeypatch)
        assert not any(path.endswith(".safetensors") for path in hub.requests)


def test_a_download_that_was_killed_is_named_and_finished_later(
    micro_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(micro_model_folder, "cut") as hub:
        process = workbench(tmp_path, hub.url, "download", REPOSITORY, "--allow-network")
        while not hub.half_sent.wait(1) and process.poll() is None:
            pass
        process.send_signal(signal.SIGKILL)
        errors = process.communicate()[1]
        assert hub.half_sent.is_set(), errors
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(InputError) as caught:
        resolve_folder(REPOSITORY)
    sentence = str(caught.value)
    assert sentence.startswith(f"{REPOSITORY} is only partly here (") and ".safetensors has " in sentence
    assert " bytes, " in sentence and f"`workbench download {REPOSITORY} --allow-network`" in sentence
    with serve(micro_model_folder) as hub:
        point_at(hub.url, monkeypatch)
        folder = resolve_folder(REPOSITORY, allow_network=True)
    assert folder.name == REVISION and resolve_folder(REPOSITORY) == folder
    assert model_facts(REPOSITORY).fingerprint == model_facts(str(micro_model_folder)).fingerprint
