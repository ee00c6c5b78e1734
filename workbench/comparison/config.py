"""What is compared: prompts are rows, the teacher and its students are columns. Loads no weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from workbench.errors import InputError
from workbench.sampling import GenerateConfig
from workbench.surgery import is_student
from workbench.types import StrictModel

MAX_SIDES = 8
MAX_PROMPTS = 16


class Side(StrictModel):
    """One column beside the teacher: a student folder, or a plan over the measured cells of a bank.

    Attributes:
        model: a student folder; empty where `plan` and `bank` are given.
        plan: a plan file or a short name.
        bank: the bank folder that holds the cells of `plan`.
        linear_branch: False samples with the linear branch off, to see what it does.
        name: what the column is called; empty takes the plan's short name.
    """

    model: str = ""
    plan: str = ""
    bank: str = ""
    linear_branch: bool = True
    name: Annotated[str, Field(max_length=200)] = ""


class CompareConfig(GenerateConfig):
    """Clips of the same prompts and seed, made by the teacher and by every side.

    Attributes:
        model: the teacher; or, where `sides` is empty, a student folder.
        prompt: the first row.
        more_prompts: further rows.
        sides: the columns beside the teacher. Empty takes the one that `model`, `plan` and `bank` name.
        plan, bank, linear_branch: of that one.
        name: what the comparison is called; empty takes the prompt.
    """

    plan: str = ""
    bank: str = ""
    linear_branch: bool = True
    name: str = ""
    more_prompts: Annotated[tuple[str, ...], Field(max_length=MAX_PROMPTS - 1)] = ()
    sides: Annotated[tuple[Side, ...], Field(max_length=MAX_SIDES)] = ()

    @property
    def prompts(self) -> tuple[str, ...]:
        """All rows."""
        return (self.prompt, *self.more_prompts)

    @property
    def columns(self) -> tuple[Side, ...]:
        """All columns beside the teacher."""
        if self.sides:
            return self.sides
        model = "" if self.plan else self.model
        return (Side(model=model, plan=self.plan, bank=self.bank, linear_branch=self.linear_branch),)

    def settings(self, prompt: str) -> GenerateConfig:
        """Return what one row is sampled with."""
        names = GenerateConfig.model_fields
        return GenerateConfig(**{name: getattr(self, name) for name in names} | {"prompt": prompt})


def check(config: CompareConfig) -> None:
    """Refuse a comparison without a student, before anything is loaded.

    Raises:
        InputError: a plan without a bank, a bank without a plan, no student folder, or a row or column twice.
    """
    if config.sides and (config.plan or config.bank):
        raise InputError("A comparison names its columns by 'sides' or by 'plan' and 'bank', not both.")
    for side in config.columns:
        _check_side(side)
    for what, values in (("prompt", config.prompts), ("column", config.columns)):
        if len(set(values)) < len(values):
            raise InputError(f"The same {what} stands in the comparison twice; take one of them out.")


def _check_side(side: Side) -> None:
    if bool(side.plan) != bool(side.bank):
        given, missing = ("plan", "bank") if side.plan else ("bank", "plan")
        raise InputError(
            f"A {given} alone makes no student; give the {missing} too, or a student folder as the model."
        )
    if side.plan and side.model:
        raise InputError("A column is either a student folder or a plan with its bank, not both.")
    if not side.plan and not is_student(side.model):
        raise InputError(
            f"{Path(side.model).name!r} is not a student folder; choose one, or give a plan and its bank."
        )
