// Start the page from its link.

function open() {
  state.gallery = hasGallery() && !new URLSearchParams(location.hash.slice(1)).has("task");
  document.body.classList.toggle("gallery", state.gallery);
  if (state.gallery) {
    return showGallery();
  }
  Object.assign(view, ALL);
  const { task, seed, until, agent, size, sides: chosen } = readLink();
  Object.assign(state, { task, seed, agent, sides: chosen, chosen: size >= 0, playing: until === 0 && !still.matches });
  state.size = state.chosen ? size : usualSize(task);
  return load(until);
}

// Say what a page is for that was made for one purpose.
function introduce({ title, about, agent }) {
  document.title = title;
  document.querySelector("h1").textContent = title;
  document.querySelector("header p").textContent = about;
  document.body.classList.add("introduced");
  document.body.classList.toggle("game", agent !== undefined);
}

async function start() {
  document.body.classList.toggle("recording", Boolean(DATA.recordings));
  useTheme();
  if (DATA.usual) {
    introduce(DATA.usual);
  }
  await unpack();
  sides = SIDES.map((name) => new Side(name, `${name} world`));
  judge = DATA.recordings ? null : new Asked();
  $("trails").checked = state.trails;
  useControls();
  window.addEventListener("hashchange", open);
  window.addEventListener("resize", show);
  requestAnimationFrame(tick);
  await open();
}

// What tests read.
window.page = {
  state, view, references, data: () => DATA, sides: () => sides, round: () => round, ready: () => !state.loading,
  charts: () => chartsOf(sides, state, referencesOf), seek, zoomBy,
};
const started = start();
started.catch(fail);
