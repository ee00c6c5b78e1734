"""Fetching a model as a step of its own: what the user allows, what is refused before it, the fetch."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from workbench.errors import InputError
from workbench.models import registry
from workbench.models.folder import check_folder
from workbench.models.hub import cached_folder
from workbench.models.loader import model_facts, resolve_folder
from workbench.types import StrictModel


class DownloadConfig(StrictModel):
    """Which model is brought onto this machine.

    Attributes:
        model: registry name or hub id.
        allow_network: whether the hub may be asked; without it only what is here already is found.
    """

    model: str
    allow_network: bool = False


class Fetched(NamedTuple):
    """A model that is whole on this machine."""

    name: str
    folder: Path
    fingerprint: str


def check_download(config: DownloadConfig) -> None:
    """Refuse what can be refused without the network.

    Raises:
        InputError: no hub id, or neither here nor allowed to be fetched.
    """
    if not config.allow_network:
        resolve_folder(config.model)
        return
    if registry.find(config.model) is not None:
        return
    if config.model.count("/") != 1 or " " in config.model or config.model.startswith((".", "/", "~")):
        raise InputError(
            f"{config.model[:80]!r} is no hub id; give owner/name as the hub writes it, "
            f"or one of {', '.join(registry.names())}."
        )
    cached_folder(config.model, name=config.model)


def fetch(config: DownloadConfig) -> Fetched:
    """Return a model's whole folder, from the hub's cache or, where allowed, from the hub.

    Raises:
        InputError: one sentence: not here and not allowed, no network, no such model, no Wan pipeline.
    """
    entry = registry.find(config.model)
    name = config.model if entry is None else entry.name
    folder = resolve_folder(config.model, allow_network=config.allow_network)
    check_folder(folder, name=name)
    return Fetched(name, folder, model_facts(config.model).fingerprint)
