// A world that was recorded: replay.py says what it holds. It answers the same messages as a worker that simulates one.

const KINDS = {
  ground: Uint8Array, colours: Uint8Array, start: Uint16Array, moves: Uint8Array, jumps: Uint16Array,
  rewards: Uint8Array, changes: Uint32Array, gaps: Uint32Array, codes: Uint8Array,
};
const JUMPED = 255; // byte of an agent whose new cell is stored in full

// Returns an array of which the lowest bytes of all numbers come first, then the next ones, and so on.
async function planes(text, Kind) {
  const bytes = await inflate(text);
  const count = bytes.length / Kind.BYTES_PER_ELEMENT;
  return Kind.from({ length: count }, (_, k) => {
    let number = 0;
    for (let at = bytes.length - count + k; at >= 0; at -= count) {
      number = number * 256 + bytes[at];
    }
    return number;
  });
}

// Returns the place of each agent in each frame, row * width + column.
function placesOf({ agents, frames, width, reach }, { start, moves, jumps }) {
  const side = 2 * reach + 1;
  const places = new Int32Array(frames * agents);
  for (let i = 0; i < agents; i += 1) {
    places[i] = start[i] * width + start[agents + i];
  }
  let jump = 0;
  for (let k = 0; k + agents < places.length; k += 1) {
    if (moves[k] === JUMPED) {
      places[k + agents] = jumps[jump] * width + jumps[jump + 1];
      jump += 2;
    } else {
      places[k + agents] = places[k] + (Math.floor(moves[k] / side) - reach) * width + (moves[k] % side) - reach;
    }
  }
  return places;
}

// Returns what changes in the cells without agents after each frame: triples of place, code before and code after.
function changesOf({ agents, eats }, { ground, changes, gaps, codes }, places) {
  const now = ground.slice();
  let at = 0;
  return Array.from(changes, (count, k) => {
    const step = [];
    const set = (place, code) => {
      step.push(place, now[place], code);
      now[place] = code;
    };
    let place = 0;
    for (let j = 0; j < count; j += 1) {
      place += gaps[at];
      set(place, codes[at]);
      at += 1;
    }
    if (eats) {
      const entered = places.subarray((k + 1) * agents, (k + 2) * agents);
      entered.forEach((each) => now[each] !== EMPTY && set(each, EMPTY));
    }
    return Uint32Array.from(step);
  });
}

class Recorded {
  async ask(kind, message) {
    return this[kind](message);
  }

  async load({ recording, agent }) {
    const arrays = {};
    for (const name of Object.keys(KINDS)) {
      arrays[name] = await planes(recording.arrays[name], KINDS[name]);
    }
    this.recording = recording;
    this.colours = arrays.colours;
    this.places = placesOf(recording, arrays);
    this.changes = changesOf(recording, arrays, this.places);
    this.rewards = arrays.rewards;
    this.at = 0;
    this.ground = arrays.ground.slice(); // the cells without agents
    this.cells = arrays.ground.slice();
    return { ...this.look({ agent }), scores: recording.scores, means: this.means() };
  }

  reward(byte) {
    return (byte - this.recording.reward_zero) / this.recording.reward_unit;
  }

  // Returns the mean reward of each step, for each team. Its agents have the colour with its number.
  means() {
    const { agents, frames, teams } = this.recording;
    const counts = new Array(Math.max(teams.length, 1)).fill(0);
    const teamOf = (i) => (teams.length ? this.colours[i] - AGENT : 0);
    this.colours.forEach((_, i) => { counts[teamOf(i)] += 1; });
    return Array.from({ length: frames }, (_, k) => {
      const sums = counts.map(() => 0);
      for (let i = 0; i < agents; i += 1) {
        sums[teamOf(i)] += this.reward(this.rewards[k * agents + i]);
      }
      return sums.map((sum, team) => sum / counts[team]);
    });
  }

  // Go on by some steps, and from the end to the start.
  advance({ steps, agent }) {
    return this.seek({ step: this.at + 1 + steps <= this.recording.frames ? this.at + 1 + steps : 1, agent });
  }

  seek({ step, agent }) {
    const frame = Math.min(Math.max(step, 1), this.recording.frames) - 1;
    for (; this.at < frame; this.at += 1) {
      const changed = this.changes[this.at];
      for (let k = 0; k < changed.length; k += 3) {
        this.ground[changed[k]] = changed[k + 2];
      }
    }
    for (; this.at > frame; this.at -= 1) {
      const changed = this.changes[this.at - 1];
      for (let k = changed.length - 3; k >= 0; k -= 3) {
        this.ground[changed[k]] = changed[k + 1];
      }
    }
    return this.look({ agent });
  }

  look({ agent }) {
    const { agents, height, width } = this.recording;
    const [from, to] = [this.at * agents, (this.at + 1) * agents];
    const places = this.places.subarray(from, to);
    this.cells.set(this.ground);
    places.forEach((place, i) => { this.cells[place] = this.colours[i]; });
    return {
      steps: this.at + 1, rows: height, columns: width, cells: this.cells, places, colours: this.colours,
      rewards: Float32Array.from(this.rewards.subarray(from, to), (byte) => this.reward(byte)), values: null,
      actions: this.moved(), scores: [], took: 0,
      seen: agent === null ? null : this.seen(places[agent]),
    };
  }

  // Returns rows and columns of the moves that led to this frame, as shares of the longest. Jumps are no moves.
  moved() {
    const { agents, width, reach } = this.recording;
    const moves = new Float32Array(2 * agents);
    for (let i = 0; this.at > 0 && i < agents; i += 1) {
      const [to, from] = [this.places[this.at * agents + i], this.places[(this.at - 1) * agents + i]];
      const way = [Math.floor(to / width) - Math.floor(from / width), (to % width) - (from % width)];
      if (way.every((part) => Math.abs(part) <= reach)) {
        moves.set(way.map((part) => part / reach), 2 * i);
      }
    }
    return moves;
  }

  // Returns the cells around a place. Around the field are walls.
  seen(place) {
    const { height, width, vision } = this.recording;
    const side = 2 * vision + 1;
    const [row, column] = [Math.floor(place / width), place % width];
    const observation = Uint8Array.from({ length: side * side }, (_, k) => {
      const [r, c] = [row - vision + Math.floor(k / side), column - vision + (k % side)];
      return r >= 0 && r < height && c >= 0 && c < width ? this.cells[r * width + c] : WALL;
    });
    return { observation, window: side, row, column, logits: null };
  }
}
