// What one agent sees and does.

const CELL = 12; // pixels of a cell that it sees

function rgb([red, green, blue]) {
  return `rgb(${red},${green},${blue})`;
}

// Returns a picture of the window: row by row, the agent in the middle.
function windowOf({ observation, window: side }) {
  const squares = [];
  for (let k = 0; k < side * side; k += 1) {
    const [row, column] = [Math.floor(k / side), k % side];
    const fill = rgb(DATA.palette[observation[k]]);
    squares.push(`<rect x="${column * CELL}" y="${row * CELL}" width="${CELL - 1}" height="${CELL - 1}" fill="${fill}"/>`);
  }
  const middle = ((side - 1) / 2) * CELL;
  return `<svg class="eye" viewBox="-1 -1 ${side * CELL + 1} ${side * CELL + 1}" role="img"
    aria-label="The ${side} by ${side} cells around the agent">${squares.join("")}
    <rect class="me" x="${middle - 1}" y="${middle - 1}" width="${CELL + 1}" height="${CELL + 1}"/></svg>`;
}

function softmax(logits) {
  const most = Math.max(...logits);
  const weights = Array.from(logits, (logit) => Math.exp(logit - most));
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return weights.map((weight) => weight / sum);
}

// Returns a picture of how probable each pair of a row's and a column's choice is.
function chancesOf({ logits, choices: { outputs, levels, added } }, action, label) {
  const [rows, columns] = [0, outputs].map((first) => softmax(added.map((more, k) => logits[first + k] + more)));
  const most = Math.max(...rows) * Math.max(...columns);
  const each = 132 / levels.length;
  const squares = rows.flatMap((row, r) => columns.map((column, c) => {
    const share = row * column;
    const text = levels.length <= 4 ? `<text x="${(c + 0.5) * each}" y="${(r + 0.5) * each + 4}" text-anchor="middle"
      class="${share > 0.6 * most ? "on" : ""}">${Math.round(100 * share)}%</text>` : "";
    return `<rect x="${c * each}" y="${r * each}" width="${each - 1}" height="${each - 1}" rx="2"
      style="fill-opacity:${(0.06 + (0.94 * share) / most).toFixed(3)}"/>${text}`;
  }));
  const [row, column] = action.map((part) => nearest(levels, part));
  return `<svg class="chances" viewBox="-1 -1 134 134" role="img" aria-label="${label}">${squares.join("")}
    <rect class="taken" x="${column * each}" y="${row * each}" width="${each - 1}" height="${each - 1}" rx="2"/></svg>`;
}

// Returns the choice that an action belongs to. The level of a choice of any other value is null.
function nearest(levels, value) {
  if (levels.includes(null)) {
    return levels.includes(value) ? levels.indexOf(value) : levels.indexOf(null);
  }
  return levels.reduce((best, level, k) => (Math.abs(level - value) < Math.abs(levels[best] - value) ? k : best), 0);
}

function signed(value) {
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;
}

// Returns the part of the panel for one world.
function agentIn(side, { action }, { agent, task }) {
  const { seen, values, rewards, actions } = side.frame;
  const label = action === "discrete" ? "Probability of each of nine moves" : "Probability of each pair of values";
  const others = seen.choices?.levels.includes(null) ? ", where the last row and column stand for any other" : "";
  const chances = seen.logits
    ? `<figure>${chancesOf(seen, [actions[2 * agent], actions[2 * agent + 1]], `${label}${others}`)}
      <figcaption>what it may do${others && " (last: any other)"}</figcaption></figure>`
    : `<p class="muted small">${task.recording ? "" : "No probabilities: this side does not play a policy."}</p>`;
  const facts = [`row ${seen.row}, column ${seen.column}`,
    ...(task.unscored ? [] : [`last reward <b>${signed(rewards[agent])}</b>`]),
    ...(values ? [`value <b>${signed(values[agent])}</b>`] : [])];
  return `<div class="seen ${action}">${side.label ? `<h3>${action}: ${side.label}</h3>` : ""}
    <div class="pair"><figure>${windowOf(seen)}<figcaption>what it sees</figcaption></figure>${chances}</div>
    <p class="small">${facts.join(", ")}</p></div>`;
}

function drawAgent(element, sides, state) {
  if (state.agent === null) {
    const more = state.task.recording ? "" : ", what it may do next and what it expects";
    element.innerHTML = `<p class="muted small">Click an agent to see what it sees${more}.</p>`;
    return;
  }
  element.innerHTML = sides.map((side, k) => (side.frame.seen ? agentIn(side, state.sides[k], state) : "")).join("");
}
