"""The plan painter of the app, over a bank: paint, then take the plan."""

from __future__ import annotations

from typing import Any

from workbench.planning import Bank, Plan, make_plan
from workbench.ui.presenters import operators
from workbench.ui.presenters.plans import cell_table
from workbench.widgets.part import PartWidget


class PlanPainter(PartWidget):
    """The painter; `plan` is what stands in it now."""

    def __init__(self, bank: Bank, start: Plan | None = None) -> None:
        from workbench.operators import label

        self._bank = bank
        labels = ["softmax"] * bank.facts.num_blocks if start is None else [label(s) for s in start.operators]
        self._columns = operators(bank.facts, bank, [] if start is None else [start])
        given: dict[str, Any] = {"value": labels, "table": cell_table(bank, bank.facts, self._columns)}
        super().__init__("painter", props={"painter": given})

    @property
    def plan(self) -> Plan:
        """The painted plan, over the measured cells of the bank."""
        specs = [self._columns[label] for label in self.value("painter")]
        return make_plan(dict(enumerate(specs)), self._bank.facts)


def plan_painter(bank: Bank, *, start: Plan | None = None) -> PlanPainter:
    """Return the painter of a bank's cells: measured errors in each, unmeasured ones cannot be painted.

    Args:
        bank: the measured cells.
        start: the plan to begin with; softmax everywhere if None.
    """
    return PlanPainter(bank, start)
