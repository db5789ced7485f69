// What part of the worlds the pictures show: the same in all of them, or around the agent that is selected.

const CLOSEST = 64; // pixels of a cell
const NEARER = 1.5; // times by which a key or a button zooms
const ALL = { zoom: 1, row: 0.5, column: 0.5, follows: true };
const view = { ...ALL }; // the middle, as shares of the rows and columns, and whether it follows the agent

// Returns the rows and columns that a picture shows.
function extent({ canvas, factor }) {
  return { row: canvas.height / factor, column: canvas.width / factor };
}

// Zoom by a factor, and return whether that changes anything. The cell at a point, in shares of the picture, stays
// in its place.
function zoomBy(times, side = sides[0], point = { row: 0.5, column: 0.5 }) {
  const { picture, frame } = side;
  const zoom = Math.min(Math.max(view.zoom * times, 1), Math.max(CLOSEST / picture.whole, 1));
  if (state.loading || zoom === view.zoom) {
    return false;
  }
  const before = extent(picture);
  view.zoom = zoom;
  picture.fit(frame, room(), zoom);
  const after = extent(picture);
  const moved = (axis, cells) => picture.middle[axis] + ((point[axis] - 0.5) * (before[axis] - after[axis])) / cells;
  aimAt(side, moved("row", frame.rows), moved("column", frame.columns));
  return true;
}

function aimAt({ picture, frame }, row, column) {
  picture.aim(frame, { row, column });
  Object.assign(view, picture.middle);
  show();
}

// Move the picture by some pixels of the page.
function pan(side, right, down) {
  if (view.zoom === 1) {
    return;
  }
  const { picture, frame } = side;
  const box = picture.canvas.getBoundingClientRect();
  const shown = extent(picture);
  const rows = ((down / box.height) * shown.row) / frame.rows;
  const columns = ((right / box.width) * shown.column) / frame.columns;
  view.follows = false;
  aimAt(side, picture.middle.row - rows, picture.middle.column - columns);
}

function shares({ picture }, x, y) {
  const box = picture.canvas.getBoundingClientRect();
  return { row: (y - box.top) / box.height, column: (x - box.left) / box.width };
}
