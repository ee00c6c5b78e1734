"""Planning: plans, what they cost, the bank they draw on, and the best plan within a budget."""

from workbench.planning.allocation import Allocation, Choice
from workbench.planning.bank import Bank, BankManifest, BankWriter, Cell, TimestepError, load_bank
from workbench.planning.cost import Cost, Payoff, block_flops, cost, will_it_pay
from workbench.planning.grammar import (
    is_short,
    load,
    parse_assign,
    parse_blocks,
    parse_short,
    plan_blocks,
    spread,
)
from workbench.planning.plan import (
    ModelIdentity,
    Plan,
    check_rates,
    from_text,
    load_file,
    make_plan,
    save,
    to_json,
)
from workbench.planning.selection import Timings, allocate, as_plan, attention_budget, choices, front, select

__all__ = [
    "Allocation",
    "Bank",
    "BankManifest",
    "BankWriter",
    "Cell",
    "Choice",
    "Cost",
    "ModelIdentity",
    "Payoff",
    "Plan",
    "TimestepError",
    "Timings",
    "allocate",
    "as_plan",
    "attention_budget",
    "block_flops",
    "check_rates",
    "choices",
    "cost",
    "from_text",
    "front",
    "is_short",
    "load",
    "load_bank",
    "load_file",
    "make_plan",
    "parse_assign",
    "parse_blocks",
    "parse_short",
    "plan_blocks",
    "save",
    "select",
    "spread",
    "to_json",
    "will_it_pay",
]
