"""`list`: what is registered: processes, trees, queues, and what of it belongs on this box."""

from __future__ import annotations

import argparse
import json
from typing import Any

from commands.check import counted
from commands.site import Site
from commands.table import show
from scheduler.core.process import Process, Script
from scheduler.core.timetable import Timetable
from settings import add_options, overrides_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`--json`, and the settings."""
    parser.add_argument("--json", action="store_true", help="as JSON")
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print what is registered. Raises ConfigError."""
    site = Site(overrides_of(args))
    found = as_json(site)
    if args.json:
        print(json.dumps(found, indent=2))
        return 0
    headers = ("process", "kind", "period", "trigger", "machine", "tree", "queue", "worker")
    show(headers, [_line(item) for item in found["processes"]])
    for tree in found["trees"]:
        after = f", after {', '.join(tree['depends_on'])}" if tree["depends_on"] else ""
        print(f"tree {tree['name']}: {' → '.join(tree['processes'])}{after}")
    for queue in found["queues"]:
        print(
            f"queue {queue['name']}: {counted(queue['workers'], 'worker')} with {counted(queue['slots'], 'slot')}"
        )
    print(f"on this box ({found['box']}): {', '.join(found['here'])}")
    return 0


def _line(item: dict[str, Any]) -> tuple[object, ...]:
    period = item["qualifier"] + (f" × {item['grouping']}" if item["grouping"] > 1 else "")
    is_managed = item["kind"] == "managed"
    return (
        item["name"],
        item["kind"] + ("" if item["is_on"] else ", off"),
        period if is_managed else "",
        item["trigger"],
        item["machine"] if is_managed else "",
        item["tree"],
        item["queue"] if item["kind"] != "daemon" else "",
        item["worker"],
    )


def as_json(site: Site) -> dict[str, Any]:
    """For programs."""
    context, timetable = site.project.context, site.timetable
    return {
        "box": site.settings.box,
        "context": str(site.project.file),
        "processes": [_process(process, timetable) for process in context.processes.values()],
        "trees": [
            {
                "name": t.name,
                "title": t.title,
                "processes": list(t.processes),
                "depends_on": list(t.depends_on),
            }
            for t in context.trees.values()
        ],
        "queues": [
            {"name": q.name, "workers": q.workers, "slots": q.slots, "boxes": list(q.boxes)}
            for q in context.queues.values()
        ],
        "here": list(site.roster()),
    }


def _process(process: Process, timetable: Timetable) -> dict[str, Any]:
    tree = timetable.tree_of(process.name)
    worker = process.worker
    return {
        "name": process.name,
        "kind": process.kind,
        "qualifier": str(process.qualifier),
        "grouping": process.grouping,
        "trigger": None if process.trigger is None else process.trigger.text,
        "machine": process.machine,
        "blocking": process.blocking,
        "tree": None if tree is None else tree.name,
        "depends_on": [{"process": edge.process, "offset": edge.offset} for edge in process.depends_on],
        "queue": process.queue,
        "priority": process.priority,
        "max_active": process.max_active,
        "boxes": list(process.boxes),
        "tags": list(process.tags),
        "owner": process.owner,
        "is_on": process.is_on,
        "worker": " ".join(worker.command) if isinstance(worker, Script) else worker,
        "description": process.description,
    }
