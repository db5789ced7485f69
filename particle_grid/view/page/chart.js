// The scores of both worlds over time, for each team, on the scale from random moves (0) to the script (1).

const WINDOW = 20; // steps over which curves are averaged
const RECENT = 50; // steps in the number above a world
const LEAST = 200; // steps that the time axis shows at least
const POINTS = 160; // of a curve
const REFERENCES = [[0, "0: random moves", 12], [1, "1: script", -4]];
const [WIDE, HIGH, LEFT, BOTTOM, TOP] = [280, 132, 4, 24, 8];

// Returns the mean of the last steps before the end, for a team, normalised; null without references.
function normalised(scores, team, end, count, references) {
  if (!references || end < 1) {
    return null;
  }
  const first = Math.max(0, end - count);
  let sum = 0;
  for (let k = first; k < end; k += 1) {
    sum += scores[k][team];
  }
  const range = references.script[team] - references.random[team];
  return (sum / (end - first) - references.random[team]) / range;
}

function recentScore(side, teams, references) {
  const each = teams.map((_, team) => normalised(side.scores, team, side.scores.length, RECENT, references));
  return each.some((score) => score === null || !Number.isFinite(score)) ? null : each;
}

function curveOf(side, team, references) {
  const { length } = side.scores;
  const stride = Math.max(1, Math.ceil(length / POINTS));
  const points = [];
  for (let end = length; end > 0 && references; end -= stride) {
    points.unshift([end, normalised(side.scores, team, end, WINDOW, references)]);
  }
  return points;
}

// Draw a chart for each team into the element.
function drawCharts(element, sides, state, referencesOf) {
  element.innerHTML = state.task.unscored ? "" : state.task.teams.map((name, team) => {
    const curves = sides.map((side, k) => curveOf(side, team, referencesOf(state.sides[k].action)));
    return chart(name, curves, state);
  }).join("");
}

function chart(name, curves, state) {
  const alike = state.sides[0].action === state.sides[1].action;
  const last = Math.max(LEAST, state.steps);
  const ends = curves.map((points) => (points.length ? points.at(-1)[1]?.toFixed(2) : "unknown"));
  return plot({
    title: `score of ${name}`, label: `Score of ${name}: left ${ends[0]}, right ${ends[1]}`,
    curves: curves.map((points, k) => ({ kind: `${state.sides[k].action}${alike && k ? " dashed" : ""}`, points })),
    marks: REFERENCES, range: [-0.1, 1.2], last, axis: ["step 0", `step ${last}`],
  });
}

// Returns a chart. marks: value, label and its shift, of horizontal lines. range: values that the chart shows at least.
function plot({ title, label, curves, marks, range, last, axis }) {
  const values = curves.flatMap(({ points }) => points.map(([, value]) => value)).filter(Number.isFinite);
  const low = Math.min(...range, ...values);
  const high = Math.max(...range, ...values);
  const pad = 0.06 * (high - low) || 1;
  const x = (step) => (LEFT + (step / last) * (WIDE - LEFT - 4)).toFixed(1);
  const y = (value) => (HIGH - BOTTOM - ((value - low + pad) / (high - low + 2 * pad)) * (HIGH - BOTTOM - TOP)).toFixed(1);
  const line = ([value, name, shift]) => `<line class="grid" x1="${LEFT}" x2="${WIDE - 4}" y1="${y(value)}" y2="${y(value)}"/>
    <text x="${WIDE - 6}" y="${Number(y(value)) + shift}" text-anchor="end">${name}</text>`;
  const ends = range.length || !values.length ? [] : [[low, -4], [high, 12]].map(([value, shift]) => [value, value.toFixed(2).replace("-", "−"), shift]);
  const paths = curves.map(({ kind, points }) => {
    const path = points.filter(([, value]) => Number.isFinite(value)).map(([step, value]) => `${x(step)},${y(value)}`).join(" ");
    return `<polyline class="${kind}" points="${path}"/>`;
  });
  return `<figure><svg viewBox="0 0 ${WIDE} ${HIGH}" role="img" aria-label="${label}">
    ${[...marks, ...ends].map(line).join("")}${paths.join("")}
    <text x="${LEFT}" y="${HIGH - 5}">${axis[0]}</text>
    <text x="${WIDE - 4}" y="${HIGH - 5}" text-anchor="end">${axis[1]}</text></svg>
    <figcaption>${title}</figcaption></figure>`;
}
