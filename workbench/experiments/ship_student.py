"""Make the student that ships with the workbench: built, finetuned, judged beside its teacher, and chosen.

    python -m workbench.experiments.ship_student --plan 5xR4 --plan 8xR2 --finetune-minutes 10 --num 200

Every plan over the shipped bank is a candidate, and once more after finetuning; so is every student of those
plans that was finetuned before (`--student`, on a GPU say). All are judged as they would ship, in half
precision, by several processes where that is asked for (`--workers`). Writes
`docs/results/shipped_student.json` with every candidate, those that lost too, and
`workbench/surgery/students/embedded-student`, which `--model embedded-student` names. A run that was stopped
goes on: the numbers of clips and finetuned students are kept in the workspace.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path

from workbench.experiments.shipping import NAME, Shipping, ship
from workbench.surgery.shipped import SHIPPED
from workbench.workspace import Workspace


def main(arguments: list[str] | None = None) -> int:
    """Make, judge and ship; prints which student was chosen and why."""
    parser = argparse.ArgumentParser(prog="workbench.experiments.ship_student", description=__doc__)
    parser.add_argument(
        "--plan", action="append", required=True, help="A plan file or short name; again for more."
    )
    parser.add_argument(
        "--student", action="append", default=[], help="A student finetuned before; again for more."
    )
    parser.add_argument("--bank", default="embedded", help="The measured cells.")
    parser.add_argument("--model", default="embedded", help="The teacher.")
    parser.add_argument("--finetune-minutes", type=float, default=0.0, help="About how long; 0 for none.")
    parser.add_argument("--num", type=int, default=50, help="Held-out prompts, one clip each and model.")
    for name in ("steps", "frames"):
        parser.add_argument(f"--{name}", type=int, default=None, help="Of the clips; default: the model's.")
    parser.add_argument("--workers", type=int, default=1, help="Processes, which may share a GPU.")
    parser.add_argument("--workspace", type=Path, default=None, help="Where the work is kept.")
    parser.add_argument("--out", type=Path, default=Path("docs/results/shipped_student.json"))
    parser.add_argument("--folder", type=Path, default=SHIPPED / NAME, help="Where the best is put.")
    options = parser.parse_args(arguments)
    order = Shipping(
        plans=tuple(options.plan),
        students=tuple(options.student),
        bank=options.bank,
        model=options.model,
        finetune_minutes=options.finetune_minutes,
        num=options.num,
        steps=options.steps,
        frames=options.frames,
        workers=options.workers,
        command=_command(options),
    )
    row = ship(order, Workspace.open(options.workspace), out=options.out, folder=options.folder, tell=_tell)
    sys.stdout.write(f"{options.folder}: {row['name']}. {row['summary']}\n")
    return 0


def _command(options: argparse.Namespace) -> str:
    """Return what was asked for without the places of this machine."""
    words = [word for plan in options.plan for word in ("--plan", Path(plan).name)]
    words += [word for student in options.student for word in ("--student", Path(student).name)]
    for name in ("bank", "model", "finetune_minutes", "num", "steps", "frames", "workers"):
        value = getattr(options, name)
        if value is not None:
            shown = Path(value).name if isinstance(value, str) else f"{value:g}"
            words += [f"--{name.replace('_', '-')}", shown]
    return f"python -m workbench.experiments.ship_student {shlex.join(words)}"


def _tell(line: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
