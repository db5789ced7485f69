// A timed round in which one agent is steered by hand, and then by the script from the same moment.

const ROUND = 100; // steps
const KEYS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

class Round {
  constructor(side, state) {
    this.side = side; // number of the side
    this.agent = state.agent;
    this.from = state.steps;
    this.painted = state.painted;
    this.keys = new Set();
    this.pull = [0, 0]; // of the pointer or of the pad
    this.left = ROUND;
    this.earned = 0;
    this.scripted = null;
  }

  get running() { return this.left > 0; }

  // Returns rows and columns of the move, each from -1 to 1.
  get steer() {
    const pressed = [...this.keys].map((key) => KEYS[key]);
    const part = (axis) => pressed.reduce((sum, key) => sum + key[axis], this.pull[axis]);
    return [0, 1].map((axis) => Math.max(-1, Math.min(1, part(axis))));
  }

  // Play the same moment again with the script.
  async compare(asked, message) {
    await asked.ask("load", message);
    const others = { agent: null, steer: null, scripted: false };
    await asked.ask("advance", { ...others, steps: this.from });
    await asked.ask("begin", others);
    const { earned } = await asked.ask("advance", { agent: this.agent, steer: null, scripted: true, steps: ROUND });
    this.scripted = earned;
  }

  get text() {
    const earned = signed(this.earned);
    if (this.running) {
      return `${this.left} steps left. You have earned <b>${earned}</b>. Steer with the arrow keys or the pad, or hold the mouse on the world.`;
    }
    if (this.painted) {
      return `You earned <b>${earned}</b> in ${ROUND} steps. The world was painted, so there is nothing to compare it with.`;
    }
    return `You earned <b>${earned}</b> in ${ROUND} steps. ${this.scripted === null ? "The script is playing the same moment."
      : `The script earned <b>${signed(this.scripted)}</b> from the same moment.`}`;
  }
}

// Follow a pointer on the pad.
function usePad(pad, current) {
  const knob = pad.firstElementChild;
  let held = false;
  const pull = (rows, columns) => {
    if (current()) {
      current().pull = [rows, columns];
    }
    knob.style.transform = `translate(${columns * 40}px, ${rows * 40}px)`;
  };
  const move = (event) => {
    const box = pad.getBoundingClientRect();
    const share = (at, from, size) => Math.max(-1, Math.min(1, 2.4 * ((at - from) / size - 0.5)));
    pull(share(event.clientY, box.top, box.height), share(event.clientX, box.left, box.width));
  };
  const stop = () => {
    held = false;
    pull(0, 0);
  };
  pad.addEventListener("pointerdown", (event) => {
    pad.setPointerCapture(event.pointerId);
    held = true;
    move(event);
  });
  pad.addEventListener("pointermove", (event) => held && move(event));
  pad.addEventListener("pointerup", stop);
  pad.addEventListener("pointercancel", stop);
}
