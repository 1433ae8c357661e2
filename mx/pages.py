"""The pages: facts in, HTML out. GET only reads; the two forms here submit a command or set a cookie.

`data-live` marks what a page takes over from itself when something changed; see `static/mx.js`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from werkzeug.utils import redirect
from werkzeug.wrappers import Request, Response

from mx import acts, gather, queries, view_attention, view_job, view_log, view_overview, view_timetable
from mx.assets import asset
from mx.lateness import lateness
from mx.present import (
    FAILURES,
    STATES,
    Brief,
    clock_words,
    duration_words,
    period_words,
    plural,
    reason_words,
    time_words,
)
from mx.render import page
from mx.security import THEME_COOKIE
from mx.site import Site
from scheduler.core.command import DONE, EXPIRED, REFUSED
from scheduler.core.errors import InvalidRequest, NotFound
from scheduler.core.job import Job
from scheduler.core.lifecycle import JobState
from scheduler.core.ports import Where
from scheduler.core.records import LogChunk
from scheduler.core.timeperiod import Qualifier
from scheduler.core.uow import Uow

PLAN_ROWS = 200  # jobs of a plan that are listed; the rest is a number
JOBS_PAGE = 100
# verb -> title, what one job does, what several do
VERB_WORDS = {
    "reprocess": (
        "Reprocess",
        "goes back to embryo and runs again",
        "go back to embryo in one step and run again, each when what it stands on is finished again",
    ),
    "skip": (
        "Skip",
        "ends without a result; what stands on it is built without it",
        "end without a result; what stands on them is built without them",
    ),
    "mark_done": (
        "Mark done",
        "counts as processed, though nobody processed it",
        "change: the one counts as processed, what stands on it runs again",
    ),
    "kill": ("Kill", "is stopped and skipped; nothing else is touched", "are stopped and skipped"),
    "hold": ("Hold", "gets no new unit of work until it is released; what runs goes on", "are held"),
}
EFFECT_WORDS = {
    "none": "stays as it is",
    "reset": "runs again",
    "reset and cancel": "is canceled and runs again",
    "skip": "is skipped",
    "skip and cancel": "is canceled and skipped",
    "made": "is made, and skipped",
    "done": "counts as processed",
    "done and cancel": "is canceled and counts as processed",
    "held": "is held",
    "again": "runs once more",
    "left": "is left as it is",
}


def overview(site: Site, request: Request) -> Response:
    """What needs you first; then what runs, and the newest periods of every tree."""
    common = gather.common(site)
    real, business = common.at.real, common.at.business
    behind = {each.process.name: each for each in common.attention.behind}
    strips = {
        name: queries.newest(site, name, business)
        for name, process in site.timetable.processes.items()
        if process.kind != "daemon"
    }
    marks = {
        "late": sum(each.waiting for each in behind.values()),
        "retrying": sum(uow.state == "invalid" for uow in common.uows),
        "lost": sum(common.marks.is_lost(uow) for uow in common.uows),
        "held": len(common.holds),
    }
    head, sentence = view_attention.verdict(common.attention, common.items)
    leader = common.at.leader
    depth = queries.depth(site)
    return page(
        site,
        request,
        "overview.html",
        common,
        nav="overview",
        head=head,
        sentence=sentence,
        counts=view_overview.counts(site.tally.states(site.store, site.clock), marks),
        running=view_overview.running(common.uows, site.timetable.processes, common.rows, real, business),
        requested=sum(uow.state == "requested" for uow in common.uows),
        groups=view_overview.groups(site.timetable, common.rows, strips, behind, common.marks, business),
        machines=view_overview.machines(common.boxes, common.uows, real, leader.holder if leader else ""),
        leader=leader if common.at.leading else None,
        leader_since=view_overview.since_words(leader.taken_at, real) if leader else "",
        depth=depth,
        waiting=sum(depth.values()) if depth is not None else None,
        bar=view_overview.BAR,
    )


def timetable(site: Site, request: Request, tree: str = "") -> Response:
    """The funnel, the chosen job, and one process's year."""
    facts = gather.timetable(site, tree, request.args.get("at", ""))
    common = gather.common(site)
    business, base = common.at.business, f"/timetable/{tree}" if tree else "/timetable"
    chosen = _chosen(site, request.args.get("job", ""))
    heated = _heated(facts, request.args.get("heat", ""))
    rows = gather.heat(site, heated, facts.at.instant.year) if heated else []
    months = []
    if heated:
        row = common.rows.get(heated.name)
        start = site.timetable.start_of(heated.name)
        frontier = row.frontier if row else None
        months = view_timetable.heat(heated, facts.at.instant.year, rows, frontier, start, facts.at, base)
    earlier, later = view_timetable.neighbours(facts.at, base, business, facts.start)
    return page(
        site,
        request,
        "timetable.html",
        common,
        nav=f"tree:{tree}" if tree else "timetable",
        tree=site.timetable.trees[tree] if tree else None,
        base=base,
        at=facts.at,
        crumbs=view_timetable.crumbs(facts.at, base),
        earlier=earlier,
        later=later,
        levels=view_timetable.levels(
            facts.processes,
            facts.jobs,
            facts.at,
            facts.start,
            business,
            common.marks,
            chosen.id if chosen else "",
            base,
        ),
        chosen=_inspector(site, common, chosen) if chosen else None,
        heated=heated,
        heats=gather.heat_processes(facts.processes),
        months=months,
        year=facts.at.instant.year,
        states=STATES,
    )


def _chosen(site: Site, text: str) -> Job | None:
    if not text:
        return None
    process, _, label = text.partition("@")
    return gather.existing_job(site, process, label)


def _heated(facts: gather.TimetableFacts, name: str) -> Any:
    choice = gather.heat_processes(facts.processes)
    if name:
        for process in choice:
            if process.name == name:
                return process
        raise NotFound(f"there is no process {name!r:.80} whose year can be shown")
    days = [process for process in choice if process.qualifier == Qualifier.DAILY]
    return next(iter(days or choice), None)


def _inspector(site: Site, common: gather.Common, job: Job) -> dict[str, Any]:
    """The chosen job beside the timetable."""
    process, uow = site.timetable.processes.get(job.process), common.marks.uows.get(job.id)
    late = (
        lateness(process, common.rows.get(job.process), job.end, common.at.business)
        if process and job.open
        else None
    )
    return {
        "job": job,
        "period": period_of(site, job, common.at.business),
        "badges": view_job.badges(job, common.marks.all_of(job), uow, process, late),
        "reason": reason_words(job.reason) if job.is_finished and job.reason else "",
        "error": uow.error if uow and uow.error else (job.detail or ""),
        "acts": [
            act
            for act in view_job.acts(job, uow, common.marks.held_by(job.process, job.id), process)
            if act.allowed
        ][:3],
        "waiting": queries.waiting_for(site, job.process, job.start, job.end),
        "href": view_attention.job_href(job.process, job.timeperiod),
    }


def period_of(site: Site, job: Job | Brief, business: Any) -> str:
    """A job's period in words; its label where its process is gone."""
    process = site.timetable.processes.get(job.process)
    return period_words(process.qualifier, job.start, job.end, business) if process else job.timeperiod


def job(site: Site, request: Request, process: str, timeperiod: str) -> Response:
    """State, reason, explain, runs and attempts, log, events, and what is around it."""
    facts = gather.job(site, process, timeperiod, request.args.get("run", ""))
    common = gather.common(site)
    found, real, business = facts.job, facts.at.real, facts.at.business
    current = facts.marks.uows.get(found.id)
    late = lateness(facts.process, facts.row, found.end, business) if facts.process and found.open else None
    parts, lines, first_error = view_log.log_parts(facts.shown, facts.chunks)
    address = view_attention.job_href(process, timeperiod)
    tree = site.timetable.tree_of(process)
    why, why_dim = view_job.why_title(found)
    return page(
        site,
        request,
        "job.html",
        common,
        nav=f"tree:{tree.name}" if tree else "jobs",
        job=found,
        own=f"{process}@{timeperiod}",
        address=address,
        tree=tree,
        period=period_of(site, found, business),
        badges=view_job.badges(found, facts.marks.all_of(found), current, facts.process, late),
        reason=reason_words(found.reason) if found.is_finished else "",
        acts=view_job.acts(found, current, facts.marks.held_by(process, found.id), facts.process),
        hold=next(
            (hold for hold in facts.holds if hold.scope == facts.marks.held_by(process, found.id)), None
        ),
        why=why,
        why_dim=why_dim,
        explanation=facts.explanation,
        refusal=facts.refusal,
        chain=view_job.chain(facts.explanation, facts.jobs, site.timetable, business, real)
        if facts.explanation
        else [],
        waits=[
            f"{span.process}: {plural(n, 'job waits', 'jobs wait')} for it, directly or not."
            for span, n in facts.waiting
        ],
        runs=view_job.runs(facts.uows, facts.shown.id if facts.shown else "", address, real),
        shown=facts.shown,
        parts=parts,
        lines=lines,
        first_error=first_error,
        is_cut=facts.is_cut,
        events=view_job.events(facts.events, real),
        facts=view_job.facts(found, facts.process, facts.row, site.timetable, business, real),
        tape=[view_overview.cell(brief, facts.process, business, facts.marks) for brief in facts.siblings]
        if facts.process
        else [],
        before=_address(facts.before),
        after=_address(facts.after),
        around=[_near(site, each, business) for each in facts.around],
        unit=view_overview.unit_words(facts.process) if facts.process else "",
    )


def _address(brief: Brief | None) -> str:
    return view_attention.job_href(brief.process, brief.timeperiod) if brief else ""


def _near(site: Site, each: gather.Around, business: Any) -> dict[str, Any]:
    process = site.timetable.processes[each.span.process]
    one = each.total <= 1
    end = each.span.end
    words = period_words(process.qualifier, each.span.start, end, business)
    if not one and each.job is not None:
        words = plural(each.total, view_overview.unit_words(process))
    return {
        "role": each.role,
        "name": each.span.process,
        "words": words,
        "href": view_attention.job_href(each.job.process, each.job.timeperiod) if each.job else "",
        "state": each.job.state if each.job else "",
        "is_one": one,
        "open": each.open,
        "total": each.total,
    }


def log(site: Site, request: Request, process: str, timeperiod: str) -> Response:
    """The whole log of one unit of work, as text."""
    found = gather.existing_job(site, process, timeperiod)
    run = request.args.get("run", "")
    uow = f"{found.id}#{gather.whole_number(run, 'run', 1, 999_999_999)}" if run else found.uow
    if uow is None or site.store.get(Uow, uow) is None:
        raise NotFound(f"{found.id} has no such run")

    def pieces() -> Any:
        last = (0, -1)
        while True:
            # row by row within an attempt, then the next: never more than a bounded piece in memory
            chunks = site.store.find(
                LogChunk,
                [Where("uow", "=", uow), Where("attempt", "=", last[0]), Where("n", ">", last[1])],
                ("n",),
                200,
            )
            if chunks:
                yield "".join(chunk.text for chunk in chunks).encode("utf-8", "replace")
                last = (last[0], chunks[-1].n)
                continue
            following = site.store.select(
                LogChunk,
                ("attempt",),
                [Where("uow", "=", uow), Where("attempt", ">", last[0])],
                ("attempt",),
                1,
            )
            if not following:
                return
            last = (following[0][0], -1)

    return Response(pieces(), mimetype="text/plain", direct_passthrough=True)


def jobs(site: Site, request: Request) -> Response:
    """Jobs by state, mark and process, newest first; a page at a time."""
    common = gather.common(site)
    state, mark, name = (request.args.get(key, "") for key in ("state", "mark", "process"))
    if state and state not in tuple(JobState):
        raise InvalidRequest(f"state={state!r:.40} is unknown; use one of {', '.join(JobState)}")
    if mark and mark not in ("late", "retrying", "lost", "held"):
        raise InvalidRequest(f"mark={mark!r:.40} is unknown; use late, retrying, lost or held")
    names = [name] if name else [n for n, p in site.timetable.processes.items() if p.kind != "daemon"]
    if name and name not in site.timetable.processes:
        raise NotFound(f"there is no process {name!r:.80}")
    found: list[Brief] = []
    for each in names:
        where: list[Where] = [Where("start", "<", common.at.business + timedelta(days=3660))]
        if state:
            where.append(Where("state", "=", state))
        if mark or state in ("embryo", "in_progress", "final_run"):
            where.append(Where("open", "=", True))
        order = ("start",) if mark == "late" else ("-start",)
        found += queries.briefs(site, each, where, order, JOBS_PAGE)
    if mark:
        found = [brief for brief in found if mark in common.marks.all_of(brief)]
    found.sort(key=lambda brief: (brief.start, brief.process), reverse=mark != "late")
    rows = [
        {
            "brief": brief,
            "period": period_of(site, brief, common.at.business),
            "href": view_attention.job_href(brief.process, brief.timeperiod),
            "marks": common.marks.all_of(brief),
        }
        for brief in found[:JOBS_PAGE]
    ]
    return page(
        site,
        request,
        "jobs.html",
        common,
        nav="jobs",
        rows=rows,
        is_cut=len(found) >= JOBS_PAGE,
        state=state,
        mark=mark,
        process=name,
        names=sorted(n for n, p in site.timetable.processes.items() if p.kind != "daemon"),
        states=STATES,
        failures=FAILURES,
    )


def plan(site: Site, request: Request) -> Response:
    """What an act would do, before it is done: the list of jobs, and the reason to be given."""
    verb, id_ = request.args.get("verb", ""), request.args.get("job", "")
    process, _, label = id_.partition("@")
    found = gather.existing_job(site, process, label)
    effects = gather.effects(site, verb, found)
    common = gather.common(site)
    touched = [effect for effect in effects if effect.effect not in ("none", "left")]
    jobs_ = queries.jobs_by_id(site, [effect.job for effect in touched[:PLAN_ROWS] if effect.state])
    rows = []
    for effect in touched[:PLAN_ROWS]:
        name, _, period = effect.job.partition("@")
        there, definition = jobs_.get(effect.job), site.timetable.processes.get(name)
        words = period
        if there is not None:
            words = period_of(site, there, common.at.business)
        elif definition is not None:
            made = site.timetable.timeperiod(name, period)
            words = period_words(definition.qualifier, made.start, made.end, common.at.business)
        usual = common.rows[name].usual_ms if name in common.rows else None
        rows.append(
            {
                "name": name,
                "period": words,
                "state": effect.state,
                "becomes": EFFECT_WORDS.get(effect.effect, effect.effect),
                "usual": duration_words(usual / 1000) if usual is not None else "",
                "href": view_attention.job_href(name, period) if there is not None else "",
            }
        )
    title, one, many = VERB_WORDS[verb]
    canceled = sum("cancel" in effect.effect for effect in touched)
    context: dict[str, Any] = {
        "verb": verb,
        "title": title,
        "says": one if len(touched) == 1 else many,
        "job": found,
        "period": period_of(site, found, common.at.business),
        "rows": rows,
        "touched": len(touched),
        "rest": max(0, len(touched) - PLAN_ROWS),
        "untouched": len(effects) - len(touched),
        "canceled": canceled,
        "finished": sum(effect.state in ("processed", "noop", "skipped") for effect in touched),
        "made": sum(effect.effect == "made" for effect in touched),
        "seen": {effect.job: effect.state for effect in touched[:1000] if effect.state},
        "back": view_attention.job_href(process, label),
        "seen_at": time_words(common.at.real, common.at.real),
    }
    return page(site, request, "plan.html", common, nav="", **context)


def command(site: Site, request: Request) -> Response:
    """An act from a form, for browsers without scripts: back to the page it came from, or the refusal."""
    ask = acts.parse(site, acts.from_form(request.form))
    found = acts.carry_out(site, ask)
    back = request.form.get("back", "/")
    if not back.startswith("/") or back.startswith(("//", "/\\")):
        back = "/"
    if found.state == DONE:
        return redirect(back, 303)
    status, answer = acts.answer(site, found)
    refused = found.state in (REFUSED, EXPIRED)
    common = gather.common(site)
    return page(
        site,
        request,
        "error.html",
        common,
        status=status,
        nav="",
        title="Nothing was done" if refused else "Not done yet",
        message=answer.get("error", answer["message"]),
        allowed=answer.get("allowed", []),
        back=back,
    )


def theme(site: Site, request: Request) -> Response:
    """Set the theme's cookie: light, dark, or (empty) as the system says."""
    wanted = request.form.get("theme", "")
    if wanted not in ("light", "dark", ""):
        raise InvalidRequest(f"theme {wanted!r:.20} is unknown; use light, dark or nothing")
    back = request.form.get("back", "/")
    response = redirect(back if back.startswith("/") and not back.startswith(("//", "/\\")) else "/", 303)
    response.set_cookie(THEME_COOKIE, wanted, max_age=400 * 86400, samesite="Strict", path="/", httponly=True)
    return response


def live(site: Site, request: Request) -> Response:
    """The event stream of one page; ?job=process@timeperiod adds what only that job's page shows."""
    process, at, timeperiod = request.args.get("job", "").partition("@")

    def own() -> Any:
        return queries.job_fingerprint(site, process, timeperiod) if at else None

    stream = site.hub.open(lambda: queries.fingerprint(site), own, lambda: clock_words(site.clock.business()))
    response = Response(stream, mimetype="text/event-stream", direct_passthrough=True)
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"
    return response


def favicon(site: Site, request: Request) -> Response:
    """The icon, where nobody named one."""
    return static(site, request, "icon.svg")


def static(site: Site, request: Request, name: str) -> Response:
    """A file of `static/`, by name; with ?v= it may be kept for ever, since its address is its hash."""
    found = asset(name)
    if found is None:
        raise NotFound(f"there is no file {name!r:.80}")
    response = Response(found.body, mimetype=found.mimetype)
    response.set_etag(found.digest)
    is_pinned = request.args.get("v") == found.digest
    response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if is_pinned else "no-cache"
    response.make_conditional(request)
    return response
