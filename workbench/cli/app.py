"""The command line: parses words, builds one config, runs one step. Knows the steps by `workbench.workflow`.

Exit codes: 0 done, 2 bad input (one sentence on stderr), 1 failure. With `--json` stdout holds one document.
"""

from __future__ import annotations

import os
import sys

import typer

from workbench.cli import (
    banks,
    compare,
    data,
    demo,
    doctor,
    evaluation,
    experiments,
    export,
    jobs,
    models,
    planning,
    rendering,
    steps,
    training,
)
from workbench.errors import Cancelled, InputError, Paused, WorkbenchError

app = typer.Typer(
    name="workbench",
    help="See, choose, distil and compare linearized attention in video diffusion transformers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    steps.generate,
    steps.capture,
    training.measure,
    training.sensitivity,
    planning.plan,
    planning.cost,
    steps.surgery,
    training.finetune,
    compare.compare,
    compare.import_clip,
    compare.export_comparison,
    demo.demo,
    steps.study,
    evaluation.evaluate,
    doctor.doctor,
    rendering.render,
    rendering.times,
    models.models,
    models.facts,
    models.download,
    evaluation.evaluate_suite,
    evaluation.export_vbench,
    evaluation.vocabulary,
    experiments.experiment,
):
    app.command()(command)
app.command()(export.export)
app.command(name="import")(export.import_)
app.add_typer(jobs.app, name="jobs")
app.add_typer(data.app, name="data")
app.add_typer(banks.app, name="bank")


def main() -> None:
    """Run the command line; every refusal is one sentence on stderr."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        app(standalone_mode=False)
    except InputError as error:
        sys.stderr.write(" ".join(str(error).split()) + "\n")
        sys.exit(2)
    except typer.TyperException as error:
        message = " ".join(getattr(error, "format_message", error.__str__)().split())
        sys.stderr.write(message if message.endswith((".", "?")) else f"{message}.")
        sys.stderr.write("\n")
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort, Cancelled, Paused) as error:
        sys.stderr.write(f"{str(error) or 'Cancelled.'}\n")
        sys.exit(1)
    except WorkbenchError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)
