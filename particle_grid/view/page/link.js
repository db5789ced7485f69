// Links to a moment: #task=group&seed=3&t=80&agent=7&left=discrete:policy&right=continuous:policy

const LONGEST = 20000; // steps that a link may ask for: they are played when it is opened

function readLink() {
  const given = new URLSearchParams(location.hash.slice(1));
  const task = taskOf(given.get("task")) ?? DATA.tasks.find((each) => each.name === "group") ?? DATA.tasks[0];
  const usual = { seed: 0, t: 0, agent: null, ...DATA.usual };
  const whole = (key, least, most) => {
    const value = Number(given.get(key) ?? NaN);
    return Number.isInteger(value) && value >= least && value <= most ? value : usual[key];
  };
  const side = (key, fallback) => {
    const [action, player] = (given.get(key) ?? usual[key] ?? "").split(/:(.*)/s);
    const form = ACTIONS.includes(action) ? action : fallback;
    const known = playersOf(task, form).some((each) => each.name === player);
    return { action: form, player: known ? player : playersOf(task, form)[0].name };
  };
  return {
    task, seed: whole("seed", 0, Number.MAX_SAFE_INTEGER), until: whole("t", 0, LONGEST),
    agent: whole("agent", 0, Math.max(...task.sizes.map(({ agents }) => agents)) - 1),
    size: task.sizes.findIndex(({ agents }) => agents === whole("agents", 1, 1e6)),
    sides: SIDES.map((key, k) => side(key, ACTIONS[k])),
  };
}

function linkOf(state) {
  const parts = [`task=${state.task.name}`, ...(state.task.recording ? [] : [`seed=${state.seed}`]), `t=${state.steps}`];
  if (state.agent !== null) {
    parts.push(`agent=${state.agent}`);
  }
  if (!state.task.recording) {
    parts.push(`agents=${state.task.sizes[state.size].agents}`);
    state.sides.forEach(({ action, player }, k) => parts.push(`${SIDES[k]}=${action}:${encodeURIComponent(player)}`));
  }
  return `#${parts.join("&")}`;
}
