// The gallery, from which one opens a task: pictures of the trained policies at play, and what they score.

const MOMENT = 120; // steps until the moment that a picture shows
const DRAWN = 8; // steps between two drawings of a picture

// Returns whether the page begins with the gallery: not if it shows one task, or is about a run, a game or recordings.
function hasGallery() {
  return DATA.tasks.length > 1 && !DATA.usual && !DATA.recordings;
}

function cardOf(task) {
  const card = document.createElement("a");
  card.className = "card";
  card.href = `#task=${encodeURIComponent(task.name)}`;
  const shots = ACTIONS.filter((action) => task.players[action].length).map((action) => {
    const { score } = task.players[action][0];
    const text = `${action}${Number.isFinite(score) ? ` <b>${score.toFixed(2).replace("-", "−")}</b>` : ""}`;
    return `<figure class="${action}"><div class="frame"><canvas data-action="${action}" width="1" height="1"></canvas></div>
      <figcaption>${text}</figcaption></figure>`;
  });
  card.innerHTML = `<h2>${escaped(task.name.replace("_", " "))}</h2><p class="small">${escaped(task.purpose)}</p>
    <div class="pair">${shots.join("")}</div><span class="open">Open</span>`;
  return card;
}

// Play a policy in a worker to the moment of its picture, while the gallery is shown.
async function draw(task, canvas, { worker }) {
  const picture = new Picture(canvas);
  const { action } = canvas.dataset;
  const { name: player } = task.players[action][0];
  const looks = { colour: "team", trails: false, agent: null, vision: 0, shown: ALL };
  let frame = await worker.ask("load", worldOf({ task, size: 0, seed: 0 }, { action, player }));
  while (state.gallery) {
    if (frame.steps >= MOMENT || !still.matches) {
      picture.fit(frame, canvas.parentElement.clientWidth, ALL.zoom);
      picture.draw(frame, looks);
    }
    if (frame.steps >= MOMENT) {
      return;
    }
    frame = await worker.ask("advance", { ...NOBODY, agent: null, steps: DRAWN });
  }
}

function showGallery() {
  state.playing = false;
  document.title = TITLE;
  return next(async () => {
    if ($("cards").children.length === 0) {
      $("cards").replaceChildren(...DATA.tasks.map(cardOf));
    }
    state.loading = false;
    for (const [k, card] of [...$("cards").children].entries()) {
      const missing = [...card.querySelectorAll("canvas:not(.done)")];
      await Promise.all(missing.map((canvas, side) => draw(DATA.tasks[k], canvas, sides[side])));
      missing.forEach((canvas) => canvas.classList.toggle("done", state.gallery));
    }
  });
}
