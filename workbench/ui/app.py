"""Put the pages together and stand the guard before them. Knows every page, and what is common to all."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI
from starlette.middleware import Middleware

from workbench.errors import InputError, WorkbenchError
from workbench.jobs import Queue
from workbench.planning import lend
from workbench.surgery import lend_students
from workbench.ui.components import SHELL
from workbench.ui.context import Context, Refresh, answering
from workbench.ui.guard import MAX_BODY_BYTES, Guard
from workbench.ui.handover import routes as handover_routes
from workbench.ui.media import HERE, routes
from workbench.ui.pages import attention, compare, home, plan, runs, train
from workbench.ui.presenters import study as studies
from workbench.ui.readers import study_parts
from workbench.ui.session import FOLDERS, Study, adopt, newest, restore
from workbench.ui.theme import theme
from workbench.workspace import Workspace

HEAD = '<link rel="stylesheet" href="/workbench/static/workbench.css">'


def build_app(workspace: Workspace, *, model: str = "embedded") -> FastAPI:
    """Return the guarded web app of a workspace; queued jobs that wait are started.

    Raises:
        InputError: the model is not known, or the workspace cannot be used.
    """
    folder = Path(model).expanduser()
    context = Context(workspace, str(folder.absolute()) if folder.is_dir() else model, Queue(workspace))
    lend(workspace, context.facts)  # an unknown model is refused before anything is served
    lend_students(workspace, context.facts)
    app = FastAPI(
        routes=[*routes(workspace), *handover_routes(workspace), *home.example_routes()],
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        middleware=[Middleware(Guard)],
    )
    gr.mount_gradio_app(
        app,
        build_blocks(context),
        path="/",
        theme=theme(),
        head=HEAD,
        footer_links=[],
        run_history=False,
        show_error=True,
        ssr_mode=False,
        max_file_size=MAX_BODY_BYTES,
        favicon_path=str(HERE / "components" / "mark.svg"),
    )
    threading.Thread(target=_dispatch, args=(context,), daemon=True).start()
    return app


def build_blocks(context: Context) -> gr.Blocks:
    """Build the pages under one frame."""

    @answering
    def pulse(question: dict[str, Any]) -> dict[str, Any]:
        """Answer the jobs, and of the watched one the metric rows behind the cursor."""
        watched, after = question.get("job"), question.get("after", 0)
        if not isinstance(after, int) or after < 0:
            raise InputError(f"The cursor of a job's metrics must be a number from 0, got {after!r}.")
        jobs = studies.jobs_view(context.queue)
        version = studies.digest(jobs)
        same = version == question.get("version")
        answer: dict[str, Any] = {"version": version, "job": None, "rows": [], "next": 0}
        answer["jobs"] = None if same else jobs
        if isinstance(watched, str) and any(job["id"] == watched for job in jobs):
            rows, following = context.queue.metrics(watched, after=after)
            answer |= {"job": watched, "rows": studies.loss_rows(rows), "next": following}
        if any(job["state"] == "queued" for job in jobs):
            context.queue.dispatch()
        return answer

    with gr.Blocks(title="Workbench", analytics_enabled=False, fill_width=True) as blocks:
        study = gr.State(Study())
        shell = SHELL.build({}, calls=[pulse, runs.cancel_call(context), home.about_call(context)])
        for page in (home, attention, plan, train, compare):
            page.build(context, study)
        runs.build(context)
        context.refreshes.append(Refresh(lambda chosen: bar(context, chosen), [shell]))

        def load(request: gr.Request) -> list[Any]:
            chosen, refusal = asked_study(context, dict(request.query_params))
            *shown, shell_value = show(context, chosen)
            return [chosen, *shown, {**shell_value, "refused": refusal}]

        def settle(chosen: Study, value: dict[str, Any], request: gr.Request) -> list[Any]:
            if chosen == Study():  # the server was restarted: the page, or its link, knows what it showed
                chosen, _ = asked_study(context, asked_for(value) or dict(request.query_params))
            chosen = pick(context, follow(context, chosen, value), value)
            *shown, shell_value = show(context, chosen)
            return [chosen, *shown, {**shell_value, "handled": ended_jobs(value)}]

        everything = [study, *(output for refresh in context.refreshes for output in refresh.outputs)]
        blocks.load(load, None, everything, show_progress="hidden", api_visibility="private", queue=False)
        shell.settled(
            settle,
            [study, shell],
            everything,
            show_progress="hidden",
            api_visibility="private",
            queue=False,
            trigger_mode="multiple",
        )
    return blocks


def asked_study(context: Context, asked: Mapping[str, str]) -> tuple[Study, str]:
    """Return the study that a link asks for, and why its model is not shown where it is not."""
    try:
        here = context.at(Study(model=asked.get("model", "")))
        refusal = ""
    except InputError as error:
        here, refusal = context, str(error)
    return restore(context.workspace, asked, here.facts, model=here.model), refusal


def show(context: Context, chosen: Study) -> list[Any]:
    """Return what every page shows of a study."""
    values: list[Any] = []
    for refresh in context.refreshes:
        shown = refresh.show(chosen)
        values.extend(shown if isinstance(shown, list) else [shown])
    return values


def follow(context: Context, chosen: Study, value: Any) -> Study:
    """Return the study with what the jobs that just ended have made."""
    made = []
    for name in ended_jobs(value):
        try:
            job = context.queue.get(name)
        except InputError:
            continue
        made += [
            context.workspace.root / path
            for path in (job.result or {}).values()
            if isinstance(path, str) and path
        ]
    return adopt(chosen, context.workspace, made, context.at(chosen).facts)


def pick(context: Context, chosen: Study, value: Any) -> Study:
    """Return the study with the artefacts that were opened by hand; one that is gone changes nothing."""
    asked = value.get("chosen") if isinstance(value, dict) else None
    if not isinstance(asked, dict):
        return chosen
    here = context.at(chosen)
    present = {
        part: name for part, name in asked.items() if part in FOLDERS and name in newest(here.workspace, part)
    }
    ids = {**chosen.model_dump(), **present}
    return restore(context.workspace, ids, here.facts, model=here.model)


def ended_jobs(value: Any) -> list[str]:
    """Return the ids of jobs that a page saw ending."""
    ended = value.get("settled", []) if isinstance(value, dict) else []
    return [name for name in ended if isinstance(name, str)] if isinstance(ended, list) else []


def asked_for(value: Any) -> dict[str, str]:
    """Return the ids that the study bar of a page holds."""
    ids = value.get("ids") if isinstance(value, dict) else None
    return {name: one for name, one in ids.items() if isinstance(one, str)} if isinstance(ids, dict) else {}


def bar(context: Context, chosen: Study) -> dict[str, Any]:
    """Return the study bar's value."""
    return studies.study_bar(study_parts(context, chosen))


def _dispatch(context: Context) -> None:
    """Start what waits, off the path of the first page; then load what the first handler will need."""
    try:
        context.queue.dispatch()
        import workbench.workflow  # noqa: F401
    except WorkbenchError:
        return
