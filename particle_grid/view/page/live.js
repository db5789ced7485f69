// Follow a run while it trains: its scores, and its policies. The process that trains serves this page.

const PERIOD = 2000; // milliseconds between two questions
const LOST = 3; // questions without an answer, after which the run has ended
const NORMALISED = "env/normalised_score";
const { run } = DATA;
const scores = []; // [steps, score by name]
const moments = [[run.first, `at${run.first}`]]; // steps, and name of the player
let shown = run.first; // steps of the latest policy that is here
let lost = 0;

const inWords = (steps) => (steps < 1e5 ? steps.toLocaleString("en") : `${(steps / 1e6).toFixed(1)}M`);
const nameOf = (score) => (score === NORMALISED ? "score" : `score of ${state.task.teams[Number(score.at(-1)) - 1 || 0]}, not normalised`);
const labelOf = (steps) => (steps === 0 ? "before training" : `after ${inWords(steps)} steps`);

async function ask(path, step) {
  const answer = await fetch(`${path}?step=${step}`);
  return answer.ok ? answer.json() : null;
}

function players() {
  return state.task.players[run.action];
}

// Add the policies that are new, one at a time, and take the latest one.
async function followPolicies(news) {
  const known = new Set(moments.map(([steps]) => steps));
  const missing = news.moments.find((steps) => !known.has(steps));
  const added = missing === undefined ? null : await ask("policy", missing);
  if (added) {
    moments.push([missing, `at${missing}`]);
    moments.sort(([a], [b]) => a - b);
    players().push({ name: `at${missing}`, label: labelOf(missing), policy: DATA.policies.push(added) - 1 });
  }
  const same = added && missing === news.latest;
  const latest = news.latest > shown ? (same ? added : await ask("policy", news.latest)) : null;
  if (latest) {
    shown = news.latest;
    DATA.policies[players()[0].policy] = latest;
    sides.forEach((side, k) => isLatest(k) && next(() => side.worker.ask("replace", { policy: latest })));
  }
  if (added || latest) {
    offer();
  }
}

function isLatest(side) {
  const { action, player } = state.sides[side];
  return action === run.action && player === "latest";
}

function offer() {
  players()[0].label = `latest: ${labelOf(shown).replace("after ", "")}`;
  players().find(({ name }) => name === moments[0][1]).label = labelOf(run.first);
  sides.forEach((side, k) => side.offer(state.task, state.sides[k]));
  const slider = $("moment");
  slider.max = moments.length;
  const at = moments.findIndex(([, name]) => name === state.sides[1].player);
  slider.value = at < 0 ? moments.length : at;
  $("moment-at").textContent = at < 0 ? `the latest, ${labelOf(shown)}` : labelOf(moments[at][0]);
}

// Draw a chart of each score.
function drawRun(steps, ended) {
  $("run-at").textContent = ended ? `The run has ended after ${inWords(steps)} steps. The page keeps what it has.`
    : `${inWords(steps)} of ${inWords(run.total)} agent-steps.`;
  const names = [...new Set(scores.flatMap(([, values]) => Object.keys(values)))];
  const share = Math.max(1, Math.ceil(scores.length / POINTS));
  const kept = scores.filter((_, k) => k % share === 0 || k === scores.length - 1);
  $("run-charts").innerHTML = names.map((name) => {
    const points = kept.filter(([, values]) => name in values).map(([at, values]) => [at, values[name]]);
    const normal = name === NORMALISED;
    return plot({
      title: nameOf(name), label: `${nameOf(name)}, in training`, curves: [{ kind: run.action, points }],
      marks: normal ? REFERENCES : [], range: normal ? [-0.1, 1.2] : [], last: run.total, axis: ["0", `${inWords(run.total)} steps`],
    });
  }).join("");
}

async function follow() {
  let news = null;
  try {
    news = await ask("news", scores.length ? scores.at(-1)[0] : 0);
    lost = 0;
  } catch {
    lost += 1;
  }
  if (news && !state.loading) {
    scores.push(...news.scores);
    run.steps = news.steps;
    await followPolicies(news).catch(() => {});
  }
  drawRun(run.steps ?? run.first, lost >= LOST);
  if (lost < LOST) {
    setTimeout(follow, PERIOD);
  }
}

function useRun() {
  document.querySelector("aside").insertAdjacentHTML("afterbegin", `<section class="card" aria-labelledby="run-title">
    <h2 id="run-title">Training</h2><p class="muted small" id="run-at"></p><div id="run-charts" class="charts"></div>
    <label class="moment">Policy on the right: <output id="moment-at"></output><input id="moment" type="range" min="0" step="1"></label></section>`);
  $("moment").addEventListener("change", () => {
    const [, player] = moments[$("moment").value] ?? [0, "latest"];
    state.sides[1] = { action: run.action, player };
    load().then(offer);
  });
  sides.forEach((side) => [side.action, side.player].forEach((control) => control.addEventListener("change", () => offer())));
  offer();
  follow();
}

started.then(useRun).catch(fail);
