// What the mouse and fingers do on a picture: they select an agent, move the picture, steer, or paint.

const STEADY = 4; // pixels that a pointer may move in a click
const WHEEL = 400; // pixels of a wheel that zoom by e
const fingers = new Map(); // pointers that are down on a picture, by their number

// Returns the agent nearest to a place.
function nearestAgent({ places, columns }, { row, column }) {
  let best = null;
  let least = Infinity;
  places.forEach((place, agent) => {
    const distance = Math.hypot(Math.floor(place / columns) - row, (place % columns) - column);
    [best, least] = distance < least ? [agent, distance] : [best, least];
  });
  return best;
}

function steerTo({ frame: { places, columns } }, at) {
  const place = places[round.agent];
  const way = [at.row - Math.floor(place / columns), at.column - (place % columns)];
  round.pull = way.map((part) => Math.max(-1, Math.min(1, part / 3)));
}

function paintAround({ frame: { columns, rows } }, at) {
  const brush = [-1, 0, 1].flatMap((row) => [-1, 0, 1].map((column) => [at.row + row, at.column + column]));
  paint(brush.filter(([row, column]) => row >= 0 && row < rows && column >= 0 && column < columns)
    .map(([row, column]) => row * columns + column));
}

function usePointer(side, k) {
  const { canvas } = side.picture;
  const steers = () => round?.running && round.side === k;
  const selects = () => !steers() && state.tool === "select";
  let down = null; // where the pointer was, unless several touch the picture
  const act = (event) => {
    const at = state.loading ? null : side.picture.at(event, side.frame);
    if (at && steers()) {
      steerTo(side, at);
    } else if (at && state.tool !== "select") {
      paintAround(side, at);
    }
  };
  const drag = (event) => {
    const moved = [event.clientX - down.x, event.clientY - down.y];
    if (!selects()) {
      act(event);
    } else if (down.dragged || Math.hypot(...moved) > STEADY) {
      down = { x: event.clientX, y: event.clientY, dragged: true };
      pan(side, ...moved);
    }
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, event);
    down = fingers.size > 1 ? null : { x: event.clientX, y: event.clientY, dragged: false };
    act(event);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (down) {
      drag(event);
    } else if (fingers.size === 2 && fingers.has(event.pointerId)) {
      pinch(side, event);
    }
  });
  const up = (event) => {
    const clicked = event.type === "pointerup" && down && !down.dragged && selects() && !state.loading;
    const at = clicked ? side.picture.at(event, side.frame) : null;
    fingers.delete(event.pointerId);
    down = null;
    if (round) {
      round.pull = [0, 0];
    }
    if (at) {
      select(nearestAgent(side.frame, at));
    }
  };
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
}

function useWheel(side) {
  side.picture.canvas.addEventListener("wheel", (event) => {
    const point = shares(side, event.clientX, event.clientY);
    if (zoomBy(Math.exp(-event.deltaY / WHEEL), side, point)) {
      event.preventDefault();
    }
  }, { passive: false });
}

// Zoom by how much two fingers have moved apart.
function pinch(side, event) {
  const apart = ([one, other]) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
  const before = apart([...fingers.values()]);
  fingers.set(event.pointerId, event);
  const [one, other] = fingers.values();
  const point = shares(side, (one.clientX + other.clientX) / 2, (one.clientY + other.clientY) / 2);
  zoomBy(apart([one, other]) / Math.max(before, 1), side, point);
}
