// Start the page from its link.

function open() {
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
  document.body.classList.toggle("game", agent !== undefined);
}

async function start() {
  useTheme();
  if (DATA.usual) {
    introduce(DATA.usual);
  }
  await unpack();
  sides = [new Side("left", "left world"), new Side("right", "right world")];
  judge = new Asked();
  $("trails").checked = state.trails;
  useControls();
  window.addEventListener("hashchange", open);
  window.addEventListener("resize", show);
  await open();
  requestAnimationFrame(tick);
}

// What tests read.
window.page = { state, data: () => DATA, sides: () => sides, round: () => round, references, ready: () => !state.loading };
const started = start();
started.catch(fail);
