// A world on the page: its worker, its picture, and the choice of what plays in it.

class Side {
  constructor(name, title) {
    this.name = name;
    this.element = document.getElementById(name);
    this.element.innerHTML = `
      <div class="head">${DATA.recordings ? "" : `
        <label><span class="sr">Actions, ${title}</span><select class="form" id="${name}-action">${ACTIONS.map((action) =>
    `<option value="${action}">${action}</option>`).join("")}</select></label>
        <label><span class="sr">Player, ${title}</span><select class="who" id="${name}-player"></select></label>`}
        <output class="score" id="${name}-score" title="Mean of the last 50 steps: 0 is random moves, 1 the script"></output>
      </div>
      <div class="frame"><canvas id="${name}-world" tabindex="0" role="img"></canvas></div>`;
    this.action = document.getElementById(`${name}-action`);
    this.player = document.getElementById(`${name}-player`);
    this.output = document.getElementById(`${name}-score`);
    this.picture = new Picture(document.getElementById(`${name}-world`));
    this.worker = DATA.recordings ? new Recorded() : new Asked();
  }

  // Returns what plays, for people; nothing for a recording, which does not know.
  get label() { return this.player?.selectedOptions[0].text ?? ""; }

  // Show the choices for a task.
  offer(task, { action, player }) {
    if (task.recording) {
      return;
    }
    this.element.dataset.action = action;
    this.action.value = action;
    this.player.replaceChildren(...playersOf(task, action).map(({ name, label }) => new Option(label, name)));
    this.player.value = player;
  }

  async load(state, chosen) {
    const frame = await this.worker.ask("load", { ...worldOf(state, chosen), agent: state.agent });
    this.scores = [];
    this.means = frame.means; // of a recording
    this.look(frame);
    this.picture.forget();
  }

  look(frame) {
    this.frame = frame;
    this.scores.push(...frame.scores);
  }
}

// A worker that answers each message with one message.
class Asked {
  constructor() {
    const source = new Blob([DATA.worker], { type: "text/javascript" });
    this.worker = new Worker(URL.createObjectURL(source));
    this.waiting = new Map();
    this.count = 0;
    this.worker.onmessage = ({ data: { id, answer, problem } }) => {
      const { done, fail } = this.waiting.get(id);
      this.waiting.delete(id);
      if (problem) {
        fail(new Error(problem));
      } else {
        done(answer);
      }
    };
    this.worker.onerror = (event) => {
      this.waiting.forEach(({ fail }) => fail(new Error(`The simulator has stopped (${event.message}): load the page again.`)));
      this.waiting.clear();
    };
  }

  ask(kind, message) {
    this.count += 1;
    const id = this.count;
    return new Promise((done, fail) => {
      this.waiting.set(id, { done, fail });
      this.worker.postMessage({ id, kind, ...message });
    });
  }
}
