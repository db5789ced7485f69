// The state of the page, its loop and its controls.

const SPEEDS = DATA.recordings // steps per second, for a recording as multiples of its own rate
  ? [["¼×", 0.25], ["½×", 0.5], ["1×", 1], ["3×", 3], ["10×", 10]] : [["1×", 12], ["4×", 48], ["max", Infinity]];
const BUSY = 12; // milliseconds that the steps between two pictures should take at the highest speed
const AT_ONCE = 64; // steps between two pictures, at most
const LINKED = 500; // milliseconds between two links
const CHARTED = 100; // milliseconds between two charts
const MEASURED = 1000; // seed of the references
const LEAST_ROOM = 280; // pixels of a world, even if its controls are then below the window
const BELOW = 24; // pixels around the controls
const NOBODY = { steer: null, scripted: false };
const TITLE = document.title;
const $ = (id) => document.getElementById(id);
const still = window.matchMedia("(prefers-reduced-motion: reduce)");

const state = {
  task: null, size: 2, chosen: false, seed: 0, steps: 0, agent: null, sides: [], playing: true, colour: "team", trails: true,
  speed: DATA.recordings ? 2 : DATA.usual?.speed ?? 1, tool: "select", painted: false, loading: true, gallery: false, rate: 0,
};
const references = new Map(); // by task, size and action: mean scores of random moves and of the script, for each team
let sides = [];
let judge = null; // a worker that plays what is not shown
let round = null;
let turn = Promise.resolve();
let batch = 1;
let owed = 0;
let before = 0;
let charted = 0;
let stepping = false;

function fail(error) {
  $("problem").textContent = error.message;
  $("problem").hidden = false;
  state.playing = false;
  state.loading = false;
}

// Do one thing after the other, so that no two change the worlds at once.
function next(action) {
  turn = turn.then(action).catch(fail);
  return turn;
}

const key = (action) => `${state.task.name} ${state.size} ${action}`;
const referencesOf = (action) => references.get(key(action));

async function measure(action) {
  const name = key(action);
  if (state.task.recording || state.task.unscored || references.has(name)) {
    return;
  }
  references.set(name, null);
  const { task } = state;
  const settings = { ...state, seed: MEASURED };
  const ask = async (player, team) => (await judge.ask("measure", {
    ...worldOf(settings, { action, player }), team, steps: task.steps,
  })).means;
  const script = await ask("script", null);
  const random = []; // of each team against the script
  for (let team = 0; team < task.teams.length; team += 1) {
    random.push((await ask("random", task.teams.length > 1 ? team : null))[team]);
  }
  references.set(name, { random, script });
  show();
}

// Returns the room for a world, in pixels of the page.
function room() {
  const frame = sides[0].element.querySelector(".frame").getBoundingClientRect();
  const above = frame.top + window.scrollY;
  const below = document.querySelector(".bar").getBoundingClientRect().height + BELOW;
  return Math.floor(Math.min(frame.width, Math.max(window.innerHeight - above - below, LEAST_ROOM)));
}

// Returns the largest usual number of agents whose cells are large enough to be seen.
function usualSize(task) {
  if (DATA.usual) {
    return Math.min(DATA.usual.size, task.sizes.length - 1);
  }
  describe(); // which takes room
  const pixels = room() * Math.min(window.devicePixelRatio || 1, 1.5);
  const fits = (size) => {
    const { worlds, height, width } = task.sizes[size].discrete;
    const across = Math.ceil(Math.sqrt(worlds));
    return Math.max(across * (width + 1), Math.ceil(worlds / across) * (height + 1)) - 1 <= pixels / 2;
  };
  return [2, 1].find((size) => size < task.sizes.length && fits(size)) ?? 0;
}

function load(until = 0) {
  return next(async () => {
    state.loading = true;
    [state.painted, round, owed, batch] = [false, null, 0, 1];
    describe();
    await Promise.all(sides.map((side, k) => side.load(state, state.sides[k])));
    state.steps = sides[0].frame.steps;
    const { length } = sides[0].frame.places;
    if (state.agent !== null && state.agent >= length) {
      state.agent = null;
    }
    const end = Math.min(until, state.task.recording?.frames ?? until);
    while (state.steps < end) {
      await advance(Math.min(AT_ONCE, end - state.steps));
    }
    state.loading = false;
    show();
    writeLink();
    new Set(state.sides.map(({ action }) => action)).forEach((action) => measure(action).catch(fail));
  });
}

async function advance(steps) {
  const { agent } = state;
  const message = { ...NOBODY, steps, agent };
  const frames = await Promise.all(sides.map((side, k) => side.worker.ask("advance", round?.running && round.side === k
    ? { ...message, agent: round.agent, steer: round.move() } : message)));
  look(frames);
  if (round?.running) {
    round.left -= steps;
    round.earned = frames[round.side].earned;
    if (!round.running) {
      state.playing = false;
      writeLink();
      finish();
    }
  }
  const took = Math.max(...frames.map((frame) => frame.took));
  batch = Math.max(1, Math.min(AT_ONCE, 2 * batch, Math.floor((batch * BUSY) / Math.max(took, 1))));
}

function look(frames) {
  frames.forEach((frame, k) => sides[k].look(frame));
  state.steps = frames[0].steps;
}

// Ask all sides for a frame, and show it.
function askAll(kind, message = {}) {
  return next(async () => {
    look(await Promise.all(sides.map((side) => side.worker.ask(kind, { ...message, agent: state.agent }))));
    show();
    writeLink();
  });
}

function finish() {
  const ended = round;
  if (ended.scored && !ended.painted) {
    ended.compare(judge, worldOf(state, state.sides[ended.side])).then(show).catch(fail);
  }
}

// Redraw the worlds, and what depends on their state.
function show() {
  if (state.gallery || !sides.length || !sides[0].frame) {
    return;
  }
  const { vision } = state.task.sizes[state.size].discrete;
  const size = room();
  document.body.classList.toggle("zoomed", view.zoom > 1);
  sides.forEach((side, k) => {
    side.picture.fit(side.frame, size, view.zoom);
    side.picture.draw(side.frame, { ...state, vision, shown: view });
    side.output.innerHTML = scoreOf(side, k);
  });
  showTime();
  if (performance.now() - charted > CHARTED || !state.playing) {
    charted = performance.now();
    drawCharts($("charts"), chartsOf(sides, state, referencesOf));
    showAgent();
  }
}

function showTime() {
  const frames = state.task.recording?.frames;
  $("time").textContent = frames ? `step ${state.steps} / ${frames}` : `step ${state.steps}`;
  $("play").textContent = state.playing ? "Pause" : "Play";
  $("scrub").max = frames ?? 1;
  $("scrub").value = state.steps;
}

// Returns the score above a world.
function scoreOf(side, k) {
  const { task } = state;
  if (task.unscored || task.recording) {
    return "";
  }
  const recent = recentScore(side, task.teams, referencesOf(state.sides[k].action));
  const { team } = worldOf(state, state.sides[k]);
  const counted = (each) => (team === null ? each : [each[team]]); // a team that plays a policy alone
  const text = recent ? counted(recent).map((score) => score.toFixed(2)).join(" / ") : "…";
  const about = task.teams.length > 1 ? counted(task.teams).join(" / ") : "score";
  return `${text.replaceAll("-", "−")}<small>${about}</small>`;
}

function showAgent() {
  const chosen = state.agent !== null;
  $("agent-title").textContent = chosen ? `Agent ${state.agent}` : "An agent";
  drawAgent($("agent"), sides, state);
  $("agent-buttons").hidden = !chosen;
  $("pad").hidden = !round?.running || Boolean(round.played);
  $("again").hidden = !round?.kept;
  $("pad").className = `pad ${round ? state.sides[round.side].action : ""}`;
  const text = round ? round.text : "";
  if ($("round").innerHTML !== text) {
    $("round").innerHTML = text;
  }
}

function describe() {
  const { task } = state;
  $("about").textContent = `${task.purpose} ${task.look}`;
  $("score-about").textContent = task.unscored || (task.recording ? aboutRecorded(task) : aboutScores(task));
  if (task.recording) {
    introduce(headOf(task));
  } else if (!DATA.usual) {
    document.title = `${task.name.replace("_", " ")} – ${TITLE}`;
  }
  document.querySelectorAll("#tasks button").forEach((button) => {
    button.setAttribute("aria-pressed", button.value === task.name);
  });
  showTask();
  sides.forEach((side, k) => {
    side.offer(task, state.sides[k]);
    const { action, player } = state.sides[k];
    const what = task.recording ? task.title : `A world of ${task.name} with ${action} actions, played by ${player}`;
    side.picture.canvas.setAttribute("aria-label", `${what}. Click an agent.`);
  });
  $("agents").replaceChildren(...task.sizes.map(({ agents }, k) => new Option(agents.toLocaleString("en"), k)));
  $("agents").value = state.size;
  document.querySelector("#colour [value=reward]").disabled = Boolean(task.unscored);
  document.querySelector("#colour [value=value]").hidden = Boolean(task.recording);
  state.colour = task.unscored && state.colour === "reward" ? "team" : state.colour;
  $("colour").value = state.colour;
  $("seed").value = state.seed;
  legend();
}

// Scroll the row of tasks, which is wider than a phone, to the one that is shown.
function showTask() {
  const row = $("tasks");
  const chosen = row.querySelector("[aria-pressed=true]");
  if (chosen) {
    row.scrollLeft = chosen.offsetLeft - (row.clientWidth - chosen.offsetWidth) / 2;
  }
}

function aboutScores({ unit, teams }) {
  const two = " Both are against the script: with a policy on both teams, one's gain is the other's loss.";
  const against = teams.length > 1 ? two : "";
  return `0 is random moves, 1 the script, a policy written by hand. Measured in: ${unit}.${against}`;
}

function headOf({ title, sizes: [{ agents, discrete: { height, width } }] }) {
  return { title, about: `A recording of ${agents.toLocaleString("en")} agents in a field of ${height} × ${width} cells.` };
}

function aboutRecorded({ unit, teams, recording: { references } }) {
  const against = teams.length > 1 ? ", each against the script" : "";
  const lines = Object.keys(references).length ? ` Dashed lines: random actions and the script${against}.` : "";
  return `${unit ? `Measured in: ${unit}. ` : ""}Rewards are from −1 to 1, per agent and step.${lines}`;
}

function legend() {
  const swatch = (colour, label) => `<span><i style="background:${colour}"></i>${escaped(label)}</span>`;
  const scale = (stops, low, high) => `<span>${low}<i class="scale" style="background:linear-gradient(90deg,${stops.map(rgb)})"></i>${high}</span>`;
  const codes = Object.entries(state.task.legend);
  const ground = codes.filter(([code]) => code < AGENT).map(([code, label]) => swatch(rgb(DATA.palette[code]), label)).join("");
  const agents = {
    team: () => codes.filter(([code]) => code >= AGENT).map(([code, label]) => swatch(rgb(DATA.palette[code]), label)).join(""),
    reward: () => scale(DIVERGING, "loses", "earns"),
    value: () => scale(RISING, "expects little", "expects much") + swatch(rgb(STILL), "no policy"),
    action: () => [["up", -1, 0], ["right", 0, 1], ["down", 1, 0], ["left", 0, -1], ["stays", 0, 0]]
      .map(([label, row, column]) => swatch(rgb(directed(row, column)), label)).join(""),
  };
  $("legend").innerHTML = agents[state.colour]() + ground;
}

let written = 0; // when the link was last written
function writeLink() {
  if (!state.loading && !state.gallery) {
    written = performance.now();
    history.replaceState(null, "", linkOf(state));
  }
}

function tick(now) {
  requestAnimationFrame(tick);
  const passed = Math.min(now - before, 250);
  before = now;
  if (stepping || !state.playing || state.loading) {
    return;
  }
  const speed = (round?.running ? SPEEDS[0][1] : SPEEDS[state.speed][1]) * (state.task.recording?.fps ?? 1);
  owed = Math.min(owed + (passed / 1000) * speed, AT_ONCE);
  const steps = speed === Infinity ? batch : Math.min(Math.floor(owed), Math.max(batch, 1));
  if (steps < 1) {
    return;
  }
  owed = speed === Infinity ? 0 : Math.min(owed - steps, 4);
  stepping = true;
  next(async () => {
    if (state.playing && !state.loading) {
      await advance(round?.running ? 1 : steps);
      show();
      state.rate = 0.9 * state.rate + 0.1 * (1000 / Math.max(performance.now() - tick.last, 1));
      tick.last = performance.now();
      $("rate").textContent = `${Math.round(state.rate)} pictures per second.`;
      if (now - written > LINKED) {
        writeLink();
      }
    }
  }).finally(() => { stepping = false; });
}
tick.last = 0;

function select(agent) {
  state.agent = agent;
  view.follows = true;
  round = null;
  return askAll("look");
}

function paint(places) {
  const code = { wall: WALL, food: FOOD, erase: EMPTY }[state.tool];
  return askAll("paint", { places, code }).then(() => { state.painted = true; });
}

function useControls() {
  useTasks();
  $("speed").insertAdjacentHTML("beforeend", SPEEDS.map(([label], k) => `<button type="button" value="${k}"
    aria-pressed="${k === state.speed}">${label}</button>`).join(""));
  $("speed").addEventListener("click", ({ target }) => target.value && setSpeed(Number(target.value)));
  $("agents").addEventListener("change", () => choose({ size: Number($("agents").value), chosen: true }));
  $("seed").addEventListener("change", () => {
    const seed = Number($("seed").value);
    choose({ seed: Number.isSafeInteger(seed) && seed >= 0 ? seed : state.seed });
  });
  $("play").addEventListener("click", () => setPlaying(!state.playing));
  $("step").addEventListener("click", oneStep);
  $("restart").addEventListener("click", () => load());
  $("colour").addEventListener("change", () => set({ colour: $("colour").value }));
  $("trails").addEventListener("change", () => set({ trails: $("trails").checked }));
  $("tool").addEventListener("change", () => {
    set({ tool: $("tool").value });
    document.body.classList.toggle("drawing", state.tool !== "select");
  });
  sides.forEach((side, k) => {
    useSide(side, k);
    usePointer(side, k);
    useWheel(side);
  });
  $("scrub").addEventListener("input", () => seek(Number($("scrub").value)));
  $("nearer").addEventListener("click", () => zoomBy(NEARER));
  $("farther").addEventListener("click", () => zoomBy(1 / NEARER));
  useAgentPanel();
  usePad($("pad"), () => round);
  useKeys();
}
