// Asks /api/v1/status once a second and shows it. Text goes in by textContent only, never as HTML: it comes from servers and people.
"use strict";

const PERIOD_MS = 1000;
const TIMEOUT_MS = 5000;
let answeredAt = null;

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined && text !== null) made.textContent = String(text);
  if (className) made.className = className;
  return made;
}

function row(cells) {
  const made = element("tr");
  for (const [text, className] of cells) made.append(element("td", text ?? "–", className));
  return made;
}

function table(headings, rows) {
  const made = element("table");
  const head = element("tr");
  for (const heading of headings) head.append(element("th", heading));
  const top = element("thead");
  top.append(head);
  const body = element("tbody");
  body.append(...rows);
  made.append(top, body);
  return made;
}

const bytes = (count) => (count === null ? null : `${count.toLocaleString("en")} B`);
const seconds = (count) => (count === null ? null : `${count.toFixed(1)} s`);

function memberRow(member) {
  return row([
    [member.name],
    [member.role, member.role === "leader" ? "leader" : ""],
    [member.state],
    [member.position_text],
    [bytes(member.lag_bytes), "number"],
    [member.receiving ? `from ${member.upstream}` : null],
    [member.routes.filter((route) => route.present).map((route) => route.name).join(", ") || null],
    [seconds(member.heartbeat_age_s), "number"],
    [member.healthy ? "healthy" : member.problem, member.healthy ? "good" : "bad"],
  ]);
}

function facts(group) {
  const down = group.votes.filter((vote) => vote.counts).length;
  return [
    `leader ${group.leader ?? "none"}`,
    `epoch ${group.epoch ?? "–"}`,
    group.lease_remaining_s === null ? `lease moved ${seconds(group.lease_moved_s) ?? "never"} ago` : `lease ${seconds(group.lease_remaining_s)} left${group.failsafe.active ? ` by ${group.failsafe.promises} promises of ${group.failsafe.needed} needed` : ""}`,
    `durability ${group.durability}${group.sync_set === null ? "" : ` (${group.sync_set.join(", ") || "nobody"})`}`,
    `votes down ${down} of ${group.votes_needed ?? "–"} needed`,
    `fences ${group.fences.standing.join(", ") || "none"}${group.fences.kernel_problem ? ` (no kernel lease: ${group.fences.kernel_problem})` : ""}`,
    group.failsafe.absence ? `no failsafe: ${group.failsafe.absence}` : null,
    group.paused ? "PAUSED" : null,
  ].filter((fact) => fact !== null).join(" · ");
}

function groupPart(group) {
  const part = element("article");
  const title = element("h2", group.name);
  title.append(" ", element("span", group.situation.replaceAll("_", " "), "situation"));
  part.append(title, element("p", group.sentence), element("p", facts(group), "facts"));
  for (const reason of group.blocking) part.append(element("p", `No failover now: ${reason}.`, "bad"));
  const wait = group.sync_wait;
  if (wait) part.append(element("p", `Commits wait for ${wait.standbys.join(", ")}, silent for ${seconds(wait.silent_s)}: the set shrinks ${wait.left_s ? `in ${seconds(wait.left_s)}` : "as soon as the coordinator commits that"}.`, "bad"));
  for (const member of group.members) {
    for (const route of member.routes) if (route.state === "conflict") part.append(element("p", `${member.name}: ${route.sentence}.`, "bad"));
  }
  part.append(table(["node", "role", "state", "position", "behind", "receiving", "points here", "heard", "health"], group.members.map(memberRow)));
  for (const intent of group.intents) {
    part.append(element("p", `${intent.kind} ${intent.node ?? ""} asked by ${intent.who} ${seconds(intent.age_s)} ago: ${intent.why}`, "facts"));
  }
  return part;
}

const CHECK_CLASS = { healthy: "good", degraded: "fair", unhealthy: "bad", unknown: "fair" };

function checkRow(check) {
  return row([
    [check.name], [check.kind], [check.level], [check.status, CHECK_CLASS[check.status]], [check.sentence],
    [check.latency_s === null ? null : (check.latency_s * 1000).toFixed(1), "number"],
  ]);
}

function show(status) {
  document.title = `quorate: ${status.node}`;
  const coordination = status.coordination.up ? "coordination answers" : "COORDINATION DOES NOT ANSWER";
  document.getElementById("node").textContent = `${status.node} · version ${status.version} · ${coordination} (${status.coordination.description})`;
  document.getElementById("groups").replaceChildren(...status.groups.map(groupPart));
  document.getElementById("checks").replaceChildren(...status.checks.map(checkRow));
}

function showAge(problem) {
  const age = document.getElementById("age");
  age.className = problem ? "bad" : "good";
  if (!problem) age.textContent = "live";
  else age.textContent = answeredAt === null ? problem : `${problem}; what is shown is ${((Date.now() - answeredAt) / 1000).toFixed(0)} s old`;
}

async function refresh() {
  try {
    const answer = await fetch("/api/v1/status", { signal: AbortSignal.timeout(TIMEOUT_MS) });
    if (!answer.ok) throw new Error((await answer.json()).error);
    show(await answer.json());
    answeredAt = Date.now();
    showAge("");
  } catch (error) {
    showAge(error instanceof TypeError || error.name === "TimeoutError" ? "the agent does not answer" : error.message);
  }
  setTimeout(refresh, PERIOD_MS);
}

refresh();
