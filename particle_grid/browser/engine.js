// The simulator and its policies in a browser: the package's own kernels in WebAssembly, and the memory they work on.
//
//   const engine = await Engine.load(bytes);             // of kernels.wasm
//   const world = await engine.world(description);       // JSON of particle_grid.browser.describe
//   world.reset(0);
//   world.step("script");                                // or "random", or a Policy, or an array of actions
//   world.observations, world.rewards, world.truncations, world.position
//
// Arrays are views of the module's memory. They stay valid until another world or policy is created: ask for them again
// afterwards. Memory is not freed: load another engine for other worlds. Nothing here computes anything that the simulator or a network defines.

const KINDS = {
  u1: Uint8Array, b1: Uint8Array, i1: Int8Array, i2: Int16Array, i4: Int32Array, u2: Uint16Array, u4: Uint32Array,
  i8: BigInt64Array, u8: BigUint64Array, f4: Float32Array, f8: Float64Array,
};
const PAGE = 65536;
const ALIGNED = 64;
const SIMD = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0,
  253, 15, 253, 98, 11]);

export class EngineError extends Error {}

export class Engine {
  static async load(bytes) {
    if (!WebAssembly.validate(SIMD)) {
      throw new EngineError("This browser has no SIMD for WebAssembly: use a version from 2023 or later.");
    }
    let instance;
    try {
      ({ instance } = await WebAssembly.instantiate(bytes, {}));
    } catch (error) {
      throw new EngineError(`The module is damaged (${error.message}): build the page again.`);
    }
    if (!instance.exports.reset || !instance.exports.__heap_base) {
      throw new EngineError("The module is not one of this simulator: build the page again.");
    }
    return new Engine(instance.exports);
  }

  constructor(functions) {
    this.functions = functions;
    this.memory = functions.memory;
    this.end = functions.__heap_base.value;
    this.result = this.take(8);
  }

  take(bytes) {
    const address = Math.ceil(this.end / ALIGNED) * ALIGNED;
    const missing = address + bytes - this.memory.buffer.byteLength;
    if (missing > 0) {
      try {
        this.memory.grow(Math.ceil(missing / PAGE));
      } catch {
        throw new EngineError(`There is no memory for ${bytes} more bytes: use a smaller world, or close other pages.`);
      }
    }
    this.end = address + bytes;
    return address;
  }

  // Returns what a function of the module returns, a whole number.
  call(name, ...records) {
    const failed = this.functions[name](this.result, ...records.map((record) => record.address));
    if (failed) {
      throw new EngineError(`The kernel ${name} failed with status ${failed}: reset the world.`);
    }
    return Number(new BigInt64Array(this.memory.buffer, this.result, 1)[0]);
  }

  async record(fields) {
    const words = fields.reduce((sum, field) => sum + (field.shape ? 1 + field.shape.length : 1), 0);
    const record = { address: this.take(8 * words), arrays: {}, engine: this };
    let at = record.address;
    const put = (word) => {
      new BigInt64Array(this.memory.buffer, at, 1)[0] = BigInt.asIntN(64, BigInt(word));
      at += 8;
    };
    for (const field of fields) {
      if (!field.shape) {
        put(field.word);
        continue;
      }
      const array = await this.array(field);
      record.arrays[field.name] = array;
      put(array.address);
      field.shape.forEach(put);
    }
    return record;
  }

  async array(field) {
    const kind = KINDS[field.dtype];
    const length = field.shape.reduce((product, each) => product * each, 1);
    const address = this.take(length * kind.BYTES_PER_ELEMENT);
    const array = { address, length, kind };
    await this.fill(array, field);
    return array;
  }

  // Write the data of a field, or zeros, into its array.
  async fill(array, field) {
    const bytes = field.data ? await inflated(field.data) : null;
    const all = new Uint8Array(this.memory.buffer, array.address, array.length * array.kind.BYTES_PER_ELEMENT);
    if (!bytes) {
      all.fill(0);
    } else if (field.step) {
      view(this, array).set(multiples(bytes, field.step));
    } else if (field.half) {
      view(this, array).set(halves(bytes));
    } else {
      all.set(bytes);
    }
  }

  async world(description) {
    const world = new World(this, description);
    if (description.scored && !this.functions[`reward_${world.task}`]) {
      throw new EngineError(`The module has no task ${world.task}: build it again with the task registered.`);
    }
    for (const [name, fields] of Object.entries(description.records)) {
      world.records[name] = await this.record(fields);
    }
    return world;
  }

  async policy(description, world) {
    const { observation_size: size, action } = description;
    if (size !== world.observationSize || action !== world.action) {
      throw new EngineError(`The policy takes observations of ${size} bytes for ${action} actions, but the world has ` +
        `${world.observationSize} bytes and ${world.action} actions: choose a policy that was trained for it.`);
    }
    const policy = new Policy(this, description);
    const agents = world.agents;
    for (const [name, fields] of Object.entries(description.records)) {
      const sized = fields.map((field) => (field.shape
        ? { ...field, shape: field.shape.map((length) => (length === "agents" ? agents : length)) } : field));
      policy.records[name] = await this.record(sized);
    }
    return policy;
  }
}

export class World {
  constructor(engine, description) {
    this.engine = engine;
    this.description = description;
    this.task = description.task;
    this.action = description.action;
    this.agents = description.worlds * description.agents; // in all worlds
    this.observationSize = (2 * description.vision + 1) ** 2 + 7;
    this.records = {};
    this.steps = 0;
  }

  array(record, name) {
    return view(this.engine, this.records[record].arrays[name]);
  }

  get observations() { return this.array("session", "observations"); }
  get rewards() { return this.array("session", "rewards"); }
  get truncations() { return this.array("session", "truncations"); }
  get position() { return this.array("state", "position"); } // rows, then columns, in grid cells
  get colour() { return this.array("state", "colour"); }
  get grid() { return this.array("state", "grid"); }
  get actions() { return this.array("actions", "actions"); }

  // Start all worlds. The script and random actions draw from generators of their own, which start from the seed, too.
  reset(seed) {
    const { state, rules, session } = this.records;
    if (!Number.isSafeInteger(seed) || seed < 0) {
      throw new EngineError(`seed=${seed} is not a seed: use a whole number from 0 to 2**53 - 1.`);
    }
    this.array("session", "seed").set([BigInt(seed) & 0xffffffffn, BigInt(seed) >> 32n]);
    this.array("session", "script_generator")[0] = BigInt(seed);
    this.array("session", "generator")[0] = BigInt(seed) + 1n;
    this.engine.call("reset", state, rules, session);
    this.engine.call("look", state, rules, session);
    this.steps = 0;
  }

  // Choose actions: "script", "random", a Policy, or an array of numbers, two for each agent.
  choose(source) {
    const { rules, session, actions, layout, task } = this.records;
    if (source === "script") {
      this.engine.call(`script_${this.task}`, session, layout, task);
      this.engine.call(`steer_${this.action}`, rules, session, actions);
    } else if (source === "random") {
      this.engine.call(`draw_${this.action}`, session, actions);
    } else if (source instanceof Policy) {
      source.act(this);
    } else {
      this.actions.set(source);
    }
  }

  step(source) {
    this.choose(source);
    for (const [name, ...records] of this.description.stages) {
      if (this.engine.call(name, ...records.map((record) => this.records[record]))) {
        throw new EngineError(`The task ${this.task} gave a reward outside [-1, 1]: scale it.`);
      }
    }
    this.steps += 1;
  }

  // Returns the score of each agent in the last step, of a task that the module has.
  scores() {
    const { state, session, layout, task } = this.records;
    this.engine.call(`score_${this.task}`, state, session, layout, task);
    return this.array("session", "scores");
  }
}

export class Policy {
  constructor(engine, description) {
    this.engine = engine;
    this.network = description.network;
    this.functions = description.functions;
    this.choices = description.choices;
    this.greedy = false;
    this.records = {};
  }

  array(record, name) {
    return view(this.engine, this.records[record].arrays[name]);
  }

  get outputs() { return this.array("memory", "out"); } // of the actor, then the value, for each agent

  // Take other weights for the same network. Agents keep what they remember.
  async replace(description) {
    for (const field of description.records.weights.filter(({ shape }) => shape)) {
      await this.engine.fill(this.records.weights.arrays[field.name], field);
    }
  }

  act(world) {
    const { weights, workspace, memory, choices } = this.records;
    const { session, actions } = world.records;
    this.engine.call(`act_${this.network}`, session, weights, workspace, memory);
    this.engine.call(this.functions[this.greedy ? "greedy" : "sample"], session, memory, choices);
    this.engine.call(this.functions.take, choices, actions);
  }
}

function view(engine, { address, length, kind }) {
  return new kind(engine.memory.buffer, address, length);
}

async function inflated(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Multiples of a step, numbered 0, -1, 1, -2, ...: the low bytes of all numbers, then the high ones.
function multiples(bytes, step) {
  const count = bytes.length / 2;
  return Float32Array.from({ length: count }, (_, k) => {
    const number = bytes[k] | (bytes[count + k] << 8);
    return ((number >>> 1) ^ -(number & 1)) * step;
  });
}

// Numbers of 16 bits (IEEE 754 binary16) as float32.
function halves(bytes) {
  const words = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2);
  return Float32Array.from(words, (word) => {
    const sign = word & 0x8000 ? -1 : 1;
    const exponent = (word >> 10) & 31;
    const fraction = word & 1023;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction);
  });
}
