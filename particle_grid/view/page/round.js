// A timed round in which one agent is steered by hand. Others then play it from the same moment, and one can watch it again.

const ROUND = 100; // steps
const KEYS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

class Round {
  // played: a round to watch again.
  constructor(side, state, played = null) {
    this.side = side; // number of the side
    this.agent = state.agent;
    this.from = state.steps;
    this.painted = state.painted;
    this.scored = !state.task.unscored;
    this.goal = state.task.purpose;
    this.played = played;
    this.moves = []; // rows and columns of each step
    this.keys = new Set();
    this.pull = [0, 0]; // of the pointer or of the pad
    this.left = ROUND;
    this.earned = 0;
    this.rivals = []; // what others earned from the same moment: their names and rewards
  }

  get running() { return this.left > 0; }

  // Whether the round can be watched again, which starts from the plain world.
  get kept() { return !this.running && !this.painted; }

  // Returns rows and columns of the next move, each from -1 to 1.
  move() {
    const move = this.played ? this.played.moves[this.moves.length] : this.steer;
    this.moves.push(move);
    return move;
  }

  get steer() {
    const pressed = [...this.keys].map((key) => KEYS[key]);
    const part = (axis) => pressed.reduce((sum, key) => sum + key[axis], this.pull[axis]);
    return [0, 1].map((axis) => Math.max(-1, Math.min(1, part(axis))));
  }

  // Play the same moment again with the script, and with the policy if there is one.
  async compare(asked, message) {
    if (this.played) {
      this.rivals = this.played.rivals;
      return;
    }
    const others = { agent: null, steer: null, scripted: false };
    for (const name of message.policy ? ["script", "policy"] : ["script"]) {
      await asked.ask("load", message);
      await asked.ask("advance", { ...others, steps: this.from });
      await asked.ask("begin", others);
      const { earned } = await asked.ask("advance", { ...others, agent: this.agent, scripted: name === "script", steps: ROUND });
      this.rivals.push([name, earned]);
    }
  }

  get text() {
    const earned = this.scored ? ` ${this.played ? "Earned" : "You have earned"} <b>${signed(this.earned)}</b>.` : "";
    if (this.running) {
      return `${this.played ? "Your round again." : this.goal} ${this.left} steps left.${earned}${this.played ? ""
        : " Steer with the arrow keys or the pad, or hold the mouse on the world."}`;
    }
    if (!this.scored) {
      return "The round is over. There are no rewards to compare.";
    }
    const compared = this.painted ? "The world was painted, so there is nothing to compare it with."
      : `From the same moment: ${this.rivals.map(([name, reward]) => `the ${name} <b>${signed(reward)}</b>`).join(", ") || "…"}.`;
    return `You earned <b>${signed(this.earned)}</b> in ${ROUND} steps. ${compared}`;
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
