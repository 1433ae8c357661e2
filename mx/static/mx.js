/* MX in the browser: keeps a page up to date, and carries acts out without leaving it.
   Every page also works without this file: links lead to pages, forms post and come back.

   Live: the stream only says that something changed; the page then reads itself again and takes over
   what differs in the parts marked data-live. Beyond the server's number of streams it polls. */
"use strict";
(() => {
  const POLL_MS = 5000, STALE_MS = 10000, RETRY_STREAM_MS = 30000, LEAST_MS = 700;
  const $ = (id) => document.getElementById(id);
  let stream = null, version = null, last = Date.now(), polling = 0, retry = 0;
  let refreshing = false, again = false, refreshed = 0;

  /* ---------- taking over what differs: focus, open details and scroll positions survive ---------- */
  const KEEP = new Set(["open", "hidden"]);
  const keyOf = (node) => node.nodeType === 1 ? node.id || node.dataset.id || "" : "";

  function attributes(old, fresh) {
    for (const { name, value } of fresh.attributes)
      if (!KEEP.has(name) && old.getAttribute(name) !== value) old.setAttribute(name, value);
    for (const { name } of [...old.attributes])
      if (!KEEP.has(name) && !fresh.hasAttribute(name)) old.removeAttribute(name);
  }

  function morph(old, fresh) {
    if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) {
      old.replaceWith(document.importNode(fresh, true));
      return;
    }
    if (old.nodeType !== 1) {
      if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
      return;
    }
    attributes(old, fresh);
    const byKey = new Map();
    for (const child of old.children) if (keyOf(child)) byKey.set(keyOf(child), child);
    let at = old.firstChild;
    for (const child of [...fresh.childNodes]) {
      const same = keyOf(child) ? byKey.get(keyOf(child)) : null;
      if (same) {
        if (same !== at) old.insertBefore(same, at); else at = at.nextSibling;
        morph(same, child);
      } else if (at && !keyOf(at) && !keyOf(child)) {
        const next = at.nextSibling;
        morph(at, child);
        at = next;
      } else {
        old.insertBefore(document.importNode(child, true), at);
      }
    }
    while (at) { const next = at.nextSibling; at.remove(); at = next; }
  }

  function takeOver(fresh) {
    for (const part of document.querySelectorAll("[data-live][id]")) {
      const other = fresh.getElementById(part.id);
      if (other && other.outerHTML !== part.outerHTML) morph(part, other);
    }
    const token = fresh.querySelector("meta[name=csrf]");
    if (token) {
      document.querySelector("meta[name=csrf]").content = token.content;
      for (const field of document.querySelectorAll("input[name=csrf]")) field.value = token.content;
    }
    const clock = fresh.getElementById("clock");
    if (clock) $("clock").textContent = clock.textContent;
  }

  async function read(address) {
    const response = await fetch(address, { headers: { Accept: "text/html" }, cache: "no-store" });
    if (!response.ok) throw new Error(`${response.status}`);
    return new DOMParser().parseFromString(await response.text(), "text/html");
  }

  async function refresh() {
    if (refreshing) { again = true; return; }
    refreshing = true;
    try {
      takeOver(await read(location.pathname + location.search));
      alive();
      refreshed = Date.now();
      follow();
    } catch (error) { /* the next beat tries again; until then the page grows stale */ }
    refreshing = false;
    if (again) { again = false; setTimeout(refresh, LEAST_MS); }
  }

  /* ---------- the stream, and polling where there is none ---------- */
  function alive() {
    last = Date.now();
    if (!$("stale").hidden) { $("stale").hidden = true; $("live").classList.add("live"); $("live-dot").classList.remove("dot-off"); }
  }

  function watch() {
    if (Date.now() - last < STALE_MS || document.hidden) return;
    $("live").classList.remove("live");
    $("live-dot").classList.add("dot-off");
    $("stale-since").textContent = "since " + new Date(last).toISOString().slice(11, 19) + " UTC";
    $("stale").hidden = false;
  }

  function open() {
    if (stream || document.hidden) return;
    stream = new EventSource(document.body.dataset.stream);
    stream.onmessage = (message) => {
      const beat = JSON.parse(message.data);
      alive();
      stopPolling();
      $("clock").textContent = beat.clock;
      if (version !== null && beat.version !== version) {
        if (Date.now() - refreshed < LEAST_MS) setTimeout(refresh, LEAST_MS); else refresh();
      }
      version = beat.version;
    };
    stream.onerror = () => {
      if (stream && stream.readyState === EventSource.CLOSED) { close(); poll(); retry = setTimeout(open, RETRY_STREAM_MS); }
      else poll();
    };
  }

  function close() { if (stream) { stream.close(); stream = null; version = null; } clearTimeout(retry); }
  function poll() { if (!polling) polling = setInterval(refresh, POLL_MS); }
  function stopPolling() { clearInterval(polling); polling = 0; }

  if (document.querySelector("meta[name=csrf]") && $("live")) {
    open();
    setInterval(watch, 1000);
    /* a browser opens few connections to one server: a tab nobody sees gives its stream back */
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) { close(); stopPolling(); } else { last = Date.now(); refresh(); open(); }
    });
    addEventListener("pagehide", close);
  }

  /* ---------- acts ---------- */
  function toast(severity, title, text) {
    const box = document.createElement("div");
    box.className = "toast";
    box.dataset.v = severity;
    const words = document.createElement("div"), head = document.createElement("b"), body = document.createElement("p");
    head.textContent = title;
    body.textContent = text;
    words.append(head, body);
    const shape = document.querySelector("use").getAttribute("href").split("#")[0] + "#v-" + severity;
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg"), use = document.createElementNS("http://www.w3.org/2000/svg", "use");
    svg.setAttribute("class", "i");
    svg.setAttribute("aria-hidden", "true");
    use.setAttribute("href", shape);
    svg.append(use);
    box.append(svg, words);
    $("toasts").append(box);
    setTimeout(() => box.remove(), severity === "success" ? 6000 : 15000);
  }

  function bodyOf(form) {
    const field = (name) => form.elements[name] ? form.elements[name].value : "";
    const target = {}, body = { verb: field("verb"), target, reason: field("reason"), id: crypto.randomUUID() };
    if (field("job")) target.jobs = [field("job")];
    else if (field("scope")) target.scope = field("scope");
    else if (field("process")) target.process = field("process");
    if (field("seen")) body.seen = JSON.parse(field("seen"));
    else if (field("job") && field("state")) body.seen = { [field("job")]: field("state") };
    return body;
  }

  /* another plan may have been opened before the answer came: that one stays */
  const isOpen = (form) => $("dialog").open && $("dialog").contains(form);

  async function act(form) {
    const buttons = form.querySelectorAll("button");
    const verb = form.elements.verb.value.replace("_", " ");
    buttons.forEach((button) => { button.disabled = true; });
    try {
      const response = await fetch("/api/commands", {
        method: "POST",
        headers: { "Content-Type": "application/json", "X-CSRF-Token": document.querySelector("meta[name=csrf]").content },
        body: JSON.stringify(bodyOf(form)),
      });
      const answer = await response.json();
      if (response.status === 200) {
        toast("success", `${verb}: done`, answer.message || "");
        if (isOpen(form)) $("dialog").close();
        else if (form.hasAttribute("data-dialog") && form.isConnected) { location.assign(form.elements.back.value); return; }
      } else if (response.status === 202) {
        toast("warning", `${verb}: waits`, answer.message);
        if (isOpen(form)) $("dialog").close();
      } else {
        const allowed = answer.allowed && answer.allowed.length ? ` Allowed: ${answer.allowed.join(", ")}.` : "";
        toast("error", "Nothing was done", (answer.error || `status ${response.status}`) + allowed);
      }
    } catch (error) {
      toast("error", "Nothing was heard back", "The dashboard cannot be reached; look again before you repeat it.");
    }
    buttons.forEach((button) => { button.disabled = false; });
    refresh();
  }

  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (!form.hasAttribute("data-act")) return;
    event.preventDefault();
    if (form.reportValidity()) act(form);
  });

  async function openPlan(address) {
    let plan;
    try { plan = (await read(address)).getElementById("plan"); } catch (error) { plan = null; }
    if (!plan) { location.assign(address); return; }
    const dialog = $("dialog");
    dialog.replaceChildren(...[...document.importNode(plan, true).childNodes]);
    dialog.showModal();
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
    if (link.hasAttribute("data-plan")) { event.preventDefault(); openPlan(link.href); }
    else if (link.hasAttribute("data-close") && $("dialog").open) { event.preventDefault(); $("dialog").close(); }
  });

  /* ---------- keys ---------- */
  const GO = { o: "/", t: "/timetable", j: "/jobs" };
  let going = 0;
  const inField = (node) => node.closest("input:not([type=checkbox]), textarea, select, [contenteditable]");

  function move(node, key) {
    const group = node.closest(".tape, .cells, .year");
    if (!group) return false;
    const cells = [...group.querySelectorAll("a.c, a.p")], at = cells.indexOf(node);
    if (at < 0) return false;
    let to = null;
    if (key === "ArrowRight") to = cells[at + 1];
    else if (key === "ArrowLeft") to = cells[at - 1];
    else if (group.matches(".year")) {
      const row = node.closest("tr"), column = [...row.cells].indexOf(node.closest("td"));
      const beside = key === "ArrowDown" ? row.nextElementSibling : row.previousElementSibling;
      to = beside && beside.cells[column] && beside.cells[column].querySelector("a");
    }
    if (!to) return false;
    to.focus();
    return true;
  }

  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      const form = document.querySelector("#dialog[open] form, #plan form");
      if (form) form.requestSubmit();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || inField(event.target) || $("dialog").open) return;
    if (event.key.startsWith("Arrow") && move(event.target, event.key)) { event.preventDefault(); return; }
    if (Date.now() - going < 1500 && GO[event.key]) { location.assign(GO[event.key]); return; }
    if (event.key === "g") { going = Date.now(); return; }
    if (event.key === "f" && $("follow")) { $("follow").click(); return; }
    const name = event.shiftKey ? "Shift " + event.key : event.key;
    const button = document.querySelector(`.toolbar [data-key="${CSS.escape(name)}"], #log-acts [data-key="${CSS.escape(name)}"]`);
    if (button) { event.preventDefault(); button.click(); }
  });

  /* ---------- the log follows its end while it grows, unless one looks at a line ---------- */
  function follow() {
    const log = document.querySelector("#log-body .log"), box = $("follow");
    if (log && box && box.checked && !location.hash.startsWith("#L") && document.querySelector("#log-foot .live")) log.scrollTop = log.scrollHeight;
  }
  follow();

  /* a year has 366 cells: the one that is chosen, or the last, is the way in by keyboard */
  const year = document.querySelector(".year");
  if (year) {
    const cells = year.querySelectorAll("a.c"), way = year.querySelector("a.c[aria-current]") || cells[cells.length - 1];
    if (way) way.tabIndex = 0;
  }
})();
