"""The child process: executes units of work one after another, and dies with its worker.

It knows no store and no broker. The user's modules are imported here, on first use, from the context's folder,
which is appended to `sys.path`. Descriptors 1 and 2 are the log of the attempt. If the worker dies, the kernel
kills this process (Linux), and a thread that waits on a pipe ends its group; see also `guard.py`.
"""

from __future__ import annotations

import faulthandler
import inspect
import json
import os
import signal
import sys
import threading
import time
import traceback
from typing import Any

from scheduler.core.errors import Permanent, SchedulerError
from scheduler.core.process import Script
from worker import command_line
from worker.api import Cancel, Link, Noop, Processed, ProcessInfo, SinkToken, Task
from worker.resolve import add_folder, resolve, resolve_worker
from worker.wire import Inflow, Recipe, Reply, Request, pack, send, unpack_request

RESULT_LIMIT = 1_000_000  # bytes of JSON
TRACEBACK_LIMIT = 32_000  # characters; the end is kept
PROGRESS_EVERY_S = 0.2  # what is said more often is thinned out here
PR_SET_PDEATHSIG = 1


class ChildLink(Link):
    """A task's line to the worker process. Progress is thinned out; its last word is not lost."""

    def __init__(self, outlet: int) -> None:
        super().__init__()
        self._outlet = outlet
        self._lock = threading.Lock()  # the user's code may have threads
        self._pending: tuple[Any, ...] | None = None
        self._last = 0.0

    def send(self, *message: Any) -> None:
        """As `Link.send`."""
        with self._lock:
            if message[0] == "progress":
                self._pending = message
                if time.monotonic() - self._last < PROGRESS_EVERY_S:
                    return
            self._flush()
            if message[0] != "progress":
                send(self._outlet, pack(message))

    def close(self, reply: Reply) -> None:
        """The last words: what was held back, and how it ended."""
        with self._lock:
            self._flush()
            if reply.error is not None or reply.traceback is not None:
                reply = reply._replace(error=_clean(reply.error), traceback=_clean(reply.traceback))
            send(self._outlet, pack(("reply", *reply)))

    def _flush(self) -> None:
        if self._pending is not None:
            send(self._outlet, pack(self._pending))
            self._pending, self._last = None, time.monotonic()


class Child:
    """Executes requests that come in at one descriptor, replies at the other. `folder` is the context's."""

    def __init__(self, inlet: int, outlet: int, folder: str | None) -> None:
        self._inlet, self._outlet, self._folder = inlet, outlet, folder
        self._workers: dict[Recipe, tuple[Any, Any]] = {}
        self.link: ChildLink | None = None
        self.group: int | None = None  # of a command line that runs

    def loop(self) -> None:
        """Execute until the worker hangs up."""
        inflow = Inflow(self._inlet)
        try:
            while True:
                request = unpack_request(inflow.wait())
                self.link = link = ChildLink(self._outlet)
                reply = self.execute(request, link)
                _flush_output()
                self.link = None
                link.close(reply)
        except (EOFError, BrokenPipeError):
            return

    def execute(self, request: Request, link: Link) -> Reply:
        """Execute one unit of work. Whatever its code does short of ending the process is a reply."""
        try:
            if request.kind == "check":
                return self._check(request, link)
            return self._work(request, link)
        except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt of the user's code too
            return _failure(error)

    def _work(self, request: Request, link: Link) -> Reply:
        call, worker = self._worker(request)
        while True:
            task = _task(request, link)
            _hook(worker, "on_start", task)
            try:
                reply = _reply(call(task))
            except Noop as answer:
                reply = Reply("no_data", error=answer.reason or None)
            except Cancel as answer:
                reply = Reply("cancel", error=answer.reason or None)
            except BaseException as error:  # noqa: BLE001 - see execute
                reply = _failure(error)
                is_retried = request.retries and not reply.permanent
                _hook(worker, "on_retry" if is_retried else "on_failure", task, error)
                return reply
            if reply.verb == "succeed" and reply.more and request.repeat:
                if reply.cursor == request.cursor:
                    return Reply(
                        "fail",
                        error=f"returned more=True without moving its cursor from {reply.cursor!r}: it would never end",
                        permanent=True,
                    )
                request = request._replace(cursor=reply.cursor)
                continue
            if reply.verb in ("succeed", "no_data"):
                _hook(worker, "on_success", task, json.loads(reply.result) if reply.result else None)
            return reply._replace(more=False) if reply.more and request.repeat else reply

    def _check(self, request: Request, link: Link) -> Reply:
        """Readiness: truthy, or falsy, or (falsy, why)."""
        predicate = request.recipe.predicate
        assert predicate is not None
        answer = resolve(predicate, "readiness predicate")(_task(request, link))
        why = None
        if isinstance(answer, tuple) and len(answer) == 2:
            answer, why = answer
        if answer:
            return Reply("succeed")
        return Reply("no_data", error=str(why) if why else "not ready yet")

    def _worker(self, request: Request) -> tuple[Any, Any]:
        """The callable for a request, and the object its hooks are on; both are kept."""
        found = self._workers.get(request.recipe)
        if found is None:
            found = self._workers[request.recipe] = self._make(request.recipe)
        return found

    def _make(self, recipe: Recipe) -> tuple[Any, Any]:
        if isinstance(recipe.worker, Script):
            script = recipe.worker
            return (lambda task: command_line.run(script, task, self._folder, self._started)), None
        found = resolve_worker(recipe.worker)
        if not inspect.isclass(found):
            return found, None
        info = ProcessInfo(recipe.definition, recipe.source, recipe.sink, recipe.defined)
        kind: Any = found
        worker = kind(info) if _takes_one(kind) else kind()
        return worker.run, worker

    def _started(self, group: int | None) -> None:
        self.group = group


def _takes_one(kind: Any) -> bool:
    """Whether a class is made with its process, as those of `Worker` are, or with nothing."""
    try:
        inspect.signature(kind).bind(None)
    except TypeError:
        return False
    except ValueError:
        return False
    return True


def _task(request: Request, link: Link) -> Task:
    return Task(
        process=request.process,
        timeperiod=request.timeperiod,
        start=request.start,
        end=request.end,
        run=request.run,
        attempt=request.attempt,
        final=request.final,
        cursor=request.cursor,
        arguments=request.arguments,
        source=request.recipe.source,
        sink=request.recipe.sink,
        token=SinkToken(request.run, request.version),
        uow=request.uow,
        business_at=request.business_at,
        business_rate=request.business_rate,
        link=link,
    )


def _reply(answer: Any) -> Reply:
    """What the user's code returned, as a reply. Raises TypeError or ValueError for what it may not return."""
    cursor, more = None, False
    if isinstance(answer, Noop):
        return Reply("no_data", error=answer.reason or None)
    if isinstance(answer, Cancel):
        return Reply("cancel", error=answer.reason or None)
    if isinstance(answer, Processed):
        answer, cursor, more = answer.result, answer.cursor, answer.more
    if cursor is not None and (not isinstance(cursor, str) or _clean(cursor) != cursor):
        raise TypeError(f"its cursor must be text or None, it is {type(cursor).__name__} {cursor!r}")
    if answer is None:
        return Reply("succeed", cursor, bool(more))
    if not isinstance(answer, dict):
        raise TypeError(
            f"it returned {type(answer).__name__}; return None, a dictionary, Processed, Noop or Cancel"
        )
    try:
        result = json.dumps(answer, allow_nan=False, ensure_ascii=False)
        size = len(result.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"its result is not JSON: {error}") from None
    if size > RESULT_LIMIT:
        raise ValueError(
            f"its result has {size:,} bytes of JSON; at most {RESULT_LIMIT:,} are kept:"
            " write what is larger to a file or to the sink"
        )
    return Reply("succeed", cursor, bool(more), result)


def _failure(error: BaseException) -> Reply:
    """An exception as a reply."""
    name, text = type(error).__name__, str(error).strip()
    if isinstance(error, SchedulerError):
        line = text
    elif isinstance(error, SystemExit):
        line = f"worker code called sys.exit({error.code!r})"
    else:
        line = f"{name}: {text}" if text else name
    frames = error.__traceback__
    while (
        frames is not None and frames.tb_next is not None and frames.tb_frame.f_code.co_filename == __file__
    ):
        frames = frames.tb_next  # our own lines tell nobody anything
    trace = "".join(traceback.format_exception(type(error), error, frames))
    if len(trace) > TRACEBACK_LIMIT:
        trace = "[…]\n" + trace[-TRACEBACK_LIMIT:]
    return Reply("fail", error=line, traceback=trace, permanent=isinstance(error, Permanent))


def _clean(text: str | None) -> str | None:
    """Text that every store takes: no lone surrogates, no zeros."""
    return text and text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")


def _hook(worker: Any, name: str, *arguments: Any) -> None:
    """Call a hook, if there is one; what it raises goes into the log and changes nothing."""
    hook = getattr(worker, name, None)
    if hook is None:
        return
    try:
        hook(*arguments)
    except BaseException:  # noqa: BLE001 - a hook changes no outcome
        sys.stderr.write(f"the hook {name} raised:\n{traceback.format_exc()}")


def _flush_output() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass  # the user's code closed or replaced it


def _die_with_worker(parent: int) -> None:
    """Have the kernel kill this process when the thread that made it ends."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # it died before


def _watch(pipe: int, child: Child) -> None:
    """The lifeline: a byte means that the present work is canceled, its end that the worker is gone."""
    while os.read(pipe, 1):
        link = child.link
        if link is not None:
            link.canceled.set()
    for group in (child.group, os.getpgrp()):
        if group is not None:
            try:
                os.killpg(group, signal.SIGKILL)
            except ProcessLookupError:
                pass


def main(inlet: int, outlet: int, pipe: int, parent: int, folder: str | None) -> None:
    """The child's life. `inlet`, `outlet`, `pipe`: inherited descriptors; `parent`: the worker's process id."""
    for fd in (inlet, outlet, pipe):
        os.set_inheritable(fd, False)
    # not SIG_IGN, which what we start would inherit: the worker alone says when to stop
    for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(sig, lambda _signal, _frame: None)
    _die_with_worker(parent)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]
    faulthandler.enable()  # a crash leaves its stack in the log
    add_folder(folder)
    child = Child(inlet, outlet, folder)
    threading.Thread(target=_watch, args=(pipe, child), name="lifeline", daemon=True).start()
    child.loop()
    os._exit(0)  # without the user's exit handlers: nothing may be written any more
