// One world, played in a worker. It follows engine.js, and answers each message with one message.

const FIRST_AGENT = 3; // code of the cells of the first colour
const GAP = 255; // code of what lies between worlds
const SPACE = 1; // cells between worlds
const FEATURES = 7; // of an observation, after the window

class Player {
  static async load({ bytes, world: description, policy, source, team, seed }) {
    const engine = await Engine.load(bytes);
    const world = await engine.world(description);
    const player = new Player(world, policy ? await engine.policy(policy, world) : source, team);
    world.reset(seed);
    player.choose();
    return player;
  }

  // Unless `team` is null, only this team plays the source, and the others the script.
  constructor(world, source, team) {
    this.world = world;
    this.source = source;
    this.team = team;
    const { worlds, height, width, teams } = world.description;
    this.across = Math.ceil(Math.sqrt(worlds));
    this.rows = Math.ceil(worlds / this.across) * (height + SPACE) - SPACE;
    this.columns = this.across * (width + SPACE) - SPACE;
    this.teams = teams;
    this.discrete = world.action === "discrete";
    this.scores = []; // of the steps since the last frame, one number for each team
    this.earned = 0; // by the agent that is steered or scripted
  }

  // Choose the actions of all agents.
  choose() {
    const { world, team } = this;
    world.choose(this.source);
    if (team !== null) {
      const { colour } = world;
      this.script((i) => colour[i] - FIRST_AGENT !== team);
    }
  }

  // Replace the actions of some agents by those of the script.
  script(chosen) {
    const { world } = this;
    const actions = world.actions.slice();
    world.choose("script");
    for (let i = 0; i < world.agents; i += 1) {
      if (chosen(i)) {
        actions.set(world.actions.subarray(2 * i, 2 * i + 2), 2 * i);
      }
    }
    world.actions.set(actions);
  }

  // Make a step with the actions that have been chosen, and choose the next ones.
  step({ agent, steer, scripted }) {
    const { world } = this;
    if (steer) {
      world.actions.set(steer.map((part) => (this.discrete ? Math.sign(Math.round(part)) + 1 : part)), 2 * agent);
    } else if (scripted) {
      this.script((i) => i === agent);
    }
    world.step(world.actions);
    if (agent !== null) {
      this.earned += world.rewards[agent];
    }
    if (world.description.scored) {
      this.scores.push(this.score());
    }
    this.choose();
  }

  // Returns the score of each team, the mean over its agents.
  score() {
    const scores = this.world.scores();
    const { colour } = this.world;
    const sums = new Array(this.teams).fill(0);
    const counts = new Array(this.teams).fill(0);
    for (let i = 0; i < scores.length; i += 1) {
      const team = this.teams > 1 ? colour[i] - FIRST_AGENT : 0;
      sums[team] += scores[i];
      counts[team] += 1;
    }
    return sums.map((sum, team) => sum / counts[team]);
  }

  // Returns the place in the picture of a cell of a world, given by its row and column in the field.
  place(world, row, column) {
    const { height, width } = this.world.description;
    const top = Math.floor(world / this.across) * (height + SPACE);
    const left = (world % this.across) * (width + SPACE);
    return (top + row) * this.columns + left + column;
  }

  cells() {
    const { worlds, height, width, vision } = this.world.description;
    const { grid } = this.world;
    const all = grid.length / worlds;
    const stride = all / (height + 2 * vision);
    const cells = new Uint8Array(this.rows * this.columns).fill(GAP);
    for (let world = 0; world < worlds; world += 1) {
      for (let row = 0; row < height; row += 1) {
        const from = world * all + (row + vision) * stride + vision;
        cells.set(grid.subarray(from, from + width), this.place(world, row, 0));
      }
    }
    return cells;
  }

  places() {
    const { agents: each, vision } = this.world.description;
    const { position, agents } = this.world;
    const places = new Int32Array(agents);
    for (let i = 0; i < agents; i += 1) {
      const row = Math.floor(position[i]) - vision;
      const column = Math.floor(position[agents + i]) - vision;
      places[i] = this.place(Math.floor(i / each), row, column);
    }
    return places;
  }

  frame(agent) {
    const { world } = this;
    const frame = {
      steps: world.steps, rows: this.rows, columns: this.columns, cells: this.cells(), places: this.places(),
      colours: world.colour.slice(), rewards: world.rewards.slice(), values: this.values(),
      actions: Float32Array.from(world.actions, (part) => (this.discrete ? part - 1 : part)),
      scores: this.scores, earned: this.earned, seen: agent === null ? null : this.seen(agent),
    };
    this.scores = [];
    return frame;
  }

  values() {
    if (!(this.source instanceof Policy)) {
      return null;
    }
    const { outputs } = this.source;
    const { agents } = this.world;
    const size = outputs.length / agents;
    return Float32Array.from({ length: agents }, (_, i) => outputs[(i + 1) * size - 1]);
  }

  // Returns what an agent sees, and what its policy makes of it.
  seen(agent) {
    const { world, source } = this;
    const size = world.observationSize;
    const [row, column] = [agent, world.agents + agent].map((k) => Math.floor(world.position[k]) - world.description.vision);
    const seen = { observation: world.observations.slice(agent * size, (agent + 1) * size), row, column, logits: null };
    seen.window = Math.sqrt(size - FEATURES);
    if (source instanceof Policy) {
      const all = source.outputs.length / world.agents;
      seen.logits = source.outputs.slice(agent * all, (agent + 1) * all - 1);
      seen.choices = source.choices;
    }
    return seen;
  }

  // Write a code into cells of the field that hold no agent.
  paint({ places, code }) {
    const { worlds, height, width, vision } = this.world.description;
    const { grid } = this.world;
    const all = grid.length / worlds;
    const stride = all / (height + 2 * vision);
    for (const place of places) {
      const row = Math.floor(place / this.columns);
      const column = place % this.columns;
      const world = Math.floor(row / (height + SPACE)) * this.across + Math.floor(column / (width + SPACE));
      const [r, c] = [row % (height + SPACE), column % (width + SPACE)];
      const at = world * all + (r + vision) * stride + c + vision;
      if (world < worlds && r < height && c < width && grid[at] < FIRST_AGENT) {
        grid[at] = code;
      }
    }
  }
}

let player = null;

const ANSWERS = {
  async load(message) {
    player = await Player.load(message);
    return player.frame(message.agent);
  },
  advance(message) {
    const started = performance.now();
    for (let k = 0; k < message.steps; k += 1) {
      player.step(message);
    }
    return { ...player.frame(message.agent), took: performance.now() - started };
  },
  look: (message) => player.frame(message.agent),
  begin(message) {
    player.earned = 0;
    return player.frame(message.agent);
  },
  // Take other weights for the policy.
  async replace({ policy }) {
    if (player.source instanceof Policy) {
      await player.source.replace(policy);
    }
    return {};
  },
  paint(message) {
    player.paint(message);
    return player.frame(message.agent);
  },
  // Returns the mean scores of an episode, for each team.
  async measure(message) {
    const measured = await Player.load(message);
    const nobody = { agent: null, steer: null, scripted: false };
    const sums = new Array(measured.teams).fill(0);
    for (let k = 0; k < message.steps; k += 1) {
      measured.step(nobody);
      measured.scores.pop().forEach((score, team) => { sums[team] += score / message.steps; });
    }
    return { means: sums };
  },
};

let turn = Promise.resolve();

self.onmessage = ({ data: message }) => {
  turn = turn.then(async () => {
    try {
      const answer = await ANSWERS[message.kind](message);
      const arrays = Object.values(answer).filter((part) => ArrayBuffer.isView(part));
      self.postMessage({ id: message.id, answer }, arrays.map((array) => array.buffer));
    } catch (error) {
      self.postMessage({ id: message.id, problem: error.message });
    }
  });
};
