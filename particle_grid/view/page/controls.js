// Controls that change the state of the page.

function set(changes) {
  Object.assign(state, changes);
  legend();
  show();
}

// Change the task or the world, and start it.
function choose(changes) {
  Object.assign(state, changes);
  if (changes.task) {
    Object.assign(view, ALL);
    state.sides = state.sides.map(({ action, player }) => ({
      action, player: playersOf(state.task, action).some(({ name }) => name === player) ? player : playersOf(state.task, action)[0].name,
    }));
    state.size = state.chosen ? Math.min(state.size, state.task.sizes.length - 1) : usualSize(state.task);
  }
  return load();
}

function setSpeed(speed) {
  state.speed = speed;
  document.querySelectorAll("#speed button").forEach((button) => button.setAttribute("aria-pressed", Number(button.value) === speed));
  setPlaying(true);
}

function setPlaying(playing) {
  state.playing = playing;
  owed = 0;
  show();
  writeLink();
}

function oneStep() {
  state.playing = false;
  return next(async () => {
    await advance(1);
    show();
    writeLink();
  });
}

// Show a step of a recording.
function seek(step) {
  state.playing = false;
  return askAll("seek", { step });
}

function useTasks() {
  const button = (value, textContent) => Object.assign(document.createElement("button"), { type: "button", value, textContent });
  const all = hasGallery() ? [button("", "all tasks")] : [];
  $("tasks").replaceChildren(...all, ...DATA.tasks.map(({ name, title }) => button(name, title ?? name.replace("_", " "))));
  $("tasks").hidden = DATA.tasks.length === 1;
  $("tasks").addEventListener("click", ({ target }) => {
    if (target.value) {
      choose({ task: taskOf(target.value) });
    } else if (target.value === "") {
      location.hash = "";
    }
  });
}

// Let one choose what plays in a world.
function useSide({ action, player }, k) {
  const change = () => {
    const known = playersOf(state.task, action.value).some(({ name }) => name === player.value);
    const [first] = playersOf(state.task, action.value);
    state.sides[k] = { action: action.value, player: known ? player.value : first.name };
    load();
  };
  action?.addEventListener("change", change);
  player?.addEventListener("change", change);
}

// Begin a round, or a replay of one that was played.
function begin(side, played = null) {
  return next(async () => {
    const { agent } = state;
    round = new Round(side, state, played);
    await sides[side].worker.ask("begin", { agent });
    state.playing = true;
    charted = 0;
    show();
    sides[side].element.scrollIntoView({ block: "nearest" });
  });
}

function useAgentPanel() {
  ["steer-left", "steer-right"].forEach((name, side) => $(name).addEventListener("click", () => begin(side)));
  $("again").addEventListener("click", () => {
    const played = round.played ?? round;
    load(played.from).then(() => begin(played.side, played));
  });
  $("next").addEventListener("click", () => select((state.agent + 1) % sides[0].frame.places.length));
  $("release").addEventListener("click", () => select(null));
}

function useKeys() {
  window.addEventListener("keydown", (event) => {
    const on = (elements) => event.target.matches?.(elements);
    if (state.gallery || event.ctrlKey || event.metaKey || event.altKey || on("input:not([type=checkbox]), select")) {
      return;
    }
    if (KEYS[event.key] && round?.running) {
      event.preventDefault();
      round.keys.add(event.key);
    } else if (event.key === " " && !on("button, input")) {
      event.preventDefault();
      setPlaying(!state.playing);
    } else if (state.task.recording && ["ArrowLeft", "ArrowRight"].includes(event.key)) {
      event.preventDefault();
      seek(state.steps + KEYS[event.key][1]);
    } else if (event.key === ".") {
      oneStep();
    } else if (event.key === "+" || event.key === "=") {
      zoomBy(NEARER);
    } else if (event.key === "-") {
      zoomBy(1 / NEARER);
    } else if (event.key === "0") {
      Object.assign(view, ALL);
      show();
    } else if (event.key === "r" || event.key === "R") {
      load();
    } else if (event.key === "n" || event.key === "N" || (event.key === "Enter" && on("canvas"))) {
      select(((state.agent ?? -1) + 1) % sides[0].frame.places.length);
    } else if (event.key === "Escape") {
      select(null);
    }
  });
  window.addEventListener("keyup", (event) => round?.keys.delete(event.key));
  window.addEventListener("blur", () => round?.keys.clear());
}

// What a browser keeps for this page, unless it keeps nothing.
const kept = {
  get(key) { try { return localStorage.getItem(key); } catch { return null; } },
  set(key, value) { try { localStorage.setItem(key, value); } catch { /* shown until the page is closed */ } },
};

function useTheme() {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const apply = (theme) => {
    document.documentElement.dataset.theme = theme;
    $("theme").setAttribute("aria-pressed", theme === "dark");
  };
  const usual = () => kept.get("particle_grid.theme") ?? (dark.matches ? "dark" : "light");
  apply(usual());
  dark.addEventListener("change", () => apply(usual()));
  $("theme").addEventListener("click", () => {
    apply(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    kept.set("particle_grid.theme", document.documentElement.dataset.theme);
  });
  $("copy").addEventListener("click", async () => {
    writeLink();
    try {
      await navigator.clipboard.writeText(location.href);
      $("copy").textContent = "Copied";
    } catch {
      $("copy").textContent = "Copy it from the address bar";
    }
    setTimeout(() => { $("copy").textContent = "Copy link"; }, 2000);
  });
}
