// Pictures of a world: one pixel for each cell, enlarged by a whole number. They show all of it or, closer, a part.

const [EMPTY, FOOD, WALL, AGENT] = [0, 1, 2, 3];
const BETWEEN = 255; // code of what lies between worlds
const FADE = 14; // steps until a trail has gone
const STRONG = 0.5; // share of an agent's colour in a fresh trail
const DIVERGING = [[240, 128, 48], [120, 120, 132], [72, 172, 255]]; // rewards: negative, none, positive
const RISING = [[62, 44, 122], [49, 104, 142], [38, 160, 136], [144, 205, 74], [253, 231, 84]]; // values
const STILL = [130, 130, 140];

function packed([red, green, blue]) {
  return (255 << 24) | (blue << 16) | (green << 8) | red;
}

function mixed(from, to, share) {
  return from.map((part, k) => Math.round(part + (to[k] - part) * share));
}

// Returns the colour at a share, from 0 to 1, of the way through some colours.
function between(stops, share) {
  const at = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const first = Math.min(Math.floor(at), stops.length - 2);
  return mixed(stops[first], stops[first + 1], at - first);
}

// Returns the colour of a direction: eight hues around, grey for none.
function directed(row, column) {
  const size = Math.min(1, Math.hypot(row, column));
  const turn = Math.atan2(row, column);
  const part = (shift) => 150 + 100 * Math.cos(turn - shift);
  return mixed(STILL, [part(0), part(2.1), part(4.2)], size);
}

class Picture {
  constructor(canvas) {
    this.canvas = canvas;
    this.cells = document.createElement("canvas");
    this.forget();
  }

  // Drop trails and the ranges of colours, for another world.
  forget() {
    this.heat = null;
    this.largest = 0.02;
    this.range = null;
    this.last = 0;
    this.middle = { row: 0.5, column: 0.5 };
  }

  // Choose the sizes of the picture and of a cell in pixels of the device. A cell has a whole number of them, except
  // that a world which is larger than the room is shrunk until one zooms.
  fit({ rows, columns }, room, zoom) {
    const ratio = window.devicePixelRatio || 1;
    const most = (room * ratio) / Math.max(rows, columns);
    this.whole = most < 1 ? most : Math.floor(most);
    this.factor = Math.max(1, Math.floor(this.whole * zoom + 1e-6));
    const shrunk = zoom === 1 && this.whole < 1;
    const pixels = (cells) => (shrunk ? cells : Math.max(1, Math.floor(cells * this.whole)));
    const [width, height] = [pixels(columns), pixels(rows)];
    if (this.canvas.width !== width || this.canvas.height !== height) {
      [this.canvas.width, this.canvas.height] = [width, height];
    }
    this.canvas.style.width = `${(columns * this.whole) / ratio}px`;
    this.canvas.style.imageRendering = shrunk ? "auto" : "pixelated";
  }

  // Choose the part that is shown by its middle, as shares of the rows and columns, and stay within the world.
  aim({ rows, columns }, { row, column }) {
    const within = (share, size, cells) => {
      const half = size / (2 * cells * this.factor);
      return Math.min(Math.max(share, half), 1 - half);
    };
    const { width, height } = this.canvas;
    this.middle = { row: within(row, height, rows), column: within(column, width, columns) };
    this.left = Math.round(width / 2 - this.middle.column * columns * this.factor);
    this.top = Math.round(height / 2 - this.middle.row * rows * this.factor);
  }

  // Draw a frame. shown: what is shown of it, see `view`.
  draw(frame, { colour, trails, agent, vision, shown }) {
    const { rows, columns, cells, places, steps } = frame;
    const count = rows * columns;
    const followed = shown.follows && agent !== null;
    this.aim(frame, followed ? shareOf(places[agent], frame) : shown);
    if (!this.heat || this.heat.length !== count) {
      this.heat = new Float32Array(count);
      this.tint = new Int32Array(count);
      [this.cells.width, this.cells.height] = [columns, rows];
      this.image = new ImageData(columns, rows);
      this.pixels = new Int32Array(this.image.data.buffer);
    }
    const hue = this.hues(frame, colour);
    this.ground(cells, trails, steps);
    for (let i = 0; i < places.length; i += 1) {
      const place = places[i];
      const value = hue(i);
      this.pixels[place] = value;
      this.heat[place] = FADE;
      this.tint[place] = value;
    }
    this.last = steps;
    this.cells.getContext("2d").putImageData(this.image, 0, 0);
    const context = this.canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(this.cells, this.left, this.top, columns * this.factor, rows * this.factor);
    if (agent !== null) {
      this.mark(context, places[agent], columns, vision);
    }
  }

  // Paint the ground, and on it the trails.
  ground(cells, trails, steps) {
    const { heat, tint, pixels } = this;
    const palette = DATA.palette.map(packed);
    const passed = steps < this.last ? FADE : steps - this.last;
    const empty = palette[EMPTY];
    for (let k = 0; k < cells.length; k += 1) {
      const code = cells[k];
      if (code === BETWEEN) {
        pixels[k] = 0;
      } else if (code === FOOD || code === WALL) {
        pixels[k] = palette[code];
        heat[k] = 0;
      } else if (heat[k] > 0) {
        heat[k] = Math.max(0, heat[k] - passed);
        pixels[k] = trails ? blend(empty, tint[k], (STRONG * heat[k]) / FADE) : empty;
      } else {
        pixels[k] = empty;
      }
    }
  }

  // Returns a function from an agent's number to its colour.
  hues({ colours, rewards, values, actions }, colour) {
    if (colour === "reward") {
      this.largest = rewards.reduce((most, reward) => Math.max(most, Math.abs(reward)), this.largest);
      return (i) => packed(between(DIVERGING, 0.5 + (0.5 * rewards[i]) / this.largest));
    }
    if (colour === "value" && values) {
      const sorted = values.slice().sort();
      const [low, high] = [sorted[Math.floor(0.02 * sorted.length)], sorted[Math.floor(0.98 * sorted.length)]];
      const kept = this.range ?? [low, high];
      this.range = [kept[0] + 0.05 * (low - kept[0]), kept[1] + 0.05 * (high - kept[1])];
      return (i) => packed(between(RISING, (values[i] - this.range[0]) / (this.range[1] - this.range[0] || 1)));
    }
    if (colour === "action") {
      return (i) => packed(directed(actions[2 * i], actions[2 * i + 1]));
    }
    if (colour === "value") {
      return () => packed(STILL);
    }
    const palette = DATA.palette.map(packed);
    return (i) => palette[colours[i]];
  }

  // Draw a frame around an agent, and a fainter one around what it sees.
  mark(context, place, columns, vision) {
    const { factor, left, top } = this;
    const row = Math.floor(place / columns);
    const column = place % columns;
    const frame = (reach, width, style) => {
      context.lineWidth = width;
      context.strokeStyle = style;
      const side = (2 * reach + 1) * factor + width;
      const [x, y] = [left + (column - reach) * factor, top + (row - reach) * factor];
      context.strokeRect(x - width / 2, y - width / 2, side, side);
    };
    const line = Math.max(1, Math.round(window.devicePixelRatio || 1));
    frame(vision, line, "rgba(255, 255, 255, 0.55)");
    frame(1, 2 * line, "#fff");
  }

  // Returns the row and column at a point of the window, null outside of the world.
  at(event, { rows, columns }) {
    const box = this.canvas.getBoundingClientRect();
    const along = (share, size, first) => Math.floor((share * size - first) / this.factor);
    const column = along((event.clientX - box.left) / box.width, this.canvas.width, this.left);
    const row = along((event.clientY - box.top) / box.height, this.canvas.height, this.top);
    return row >= 0 && row < rows && column >= 0 && column < columns ? { row, column } : null;
  }
}

// Returns the middle of a cell, as shares of the rows and columns.
function shareOf(place, { rows, columns }) {
  return { row: (Math.floor(place / columns) + 0.5) / rows, column: ((place % columns) + 0.5) / columns };
}

function blend(under, over, share) {
  const part = (shift) => {
    const from = (under >> shift) & 255;
    return (from + (((over >> shift) & 255) - from) * share) << shift;
  };
  return (255 << 24) | (part(16) & 0xff0000) | (part(8) & 0xff00) | (part(0) & 0xff);
}
