// Scores over time, for each team. Those of simulated worlds are on the scale from random moves (0) to the script (1).
// Those of a recording are in the unit of the task.

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

// Returns the charts of what is shown, each as `plot` draws it.
function chartsOf(sides, state, referencesOf) {
  const { task } = state;
  if (task.recording) {
    const { scores, means } = sides[0];
    return [...recorded("score", scores, task.recording.references, state), ...recorded("mean reward", means, {}, state)];
  }
  return task.unscored ? [] : task.teams.map((name, team) => {
    const curves = sides.map((side, k) => curveOf(side, team, referencesOf(state.sides[k].action)));
    return normalisedChart(name, curves, state);
  });
}

function normalisedChart(name, curves, state) {
  const alike = state.sides[0].action === state.sides[1].action;
  const last = Math.max(LEAST, state.steps);
  const ends = curves.map((points) => (points.length ? points.at(-1)[1]?.toFixed(2) : "unknown"));
  return {
    title: `score of ${name}`, label: `Score of ${name}: left ${ends[0]}, right ${ends[1]}`,
    curves: curves.map((points, k) => ({ kind: `${state.sides[k].action}${alike && k ? " dashed" : ""}`, points })),
    marks: REFERENCES, range: [-0.1, 1.2], last, axis: ["step 0", `step ${last}`],
  };
}

// Returns a chart for each team of what was recorded in each step, with lines of what others reach.
function recorded(what, values, references, { task, steps }) {
  const { frames } = task.recording;
  return task.teams.map((name, team) => {
    const lines = Object.entries(references).map(([whose, means]) => [means[team], whose]);
    const highest = Math.max(...lines.map(([value]) => value));
    const points = values.map((each, k) => [k + 1, each[team]]);
    const all = [...points.map(([, value]) => value), ...lines.map(([value]) => value)];
    const title = `${what} of ${name}: ${shortened(values[steps - 1][team], Math.max(...all) - Math.min(...all))}`;
    return {
      title, label: title, curves: [{ kind: "recorded", points }], range: [], first: 1, last: frames, at: steps,
      marks: lines.map(([value, whose]) => [value, whose, value === highest ? -4 : 12]),
      axis: ["step 1", `step ${frames}`],
    };
  });
}

// Returns a number with as many digits as its range needs.
function shortened(value, range) {
  const digits = Math.min(Math.max(2 - Math.floor(Math.log10(range || 1)), 0), 4);
  return value.toFixed(digits).replace(/^-(0\.?0*)$/, "$1").replace("-", "−");
}

// Draw the charts into the element.
function drawCharts(element, charts) {
  element.innerHTML = charts.map(plot).join("");
}

// Returns a chart. marks: value, label and its shift, of horizontal lines. range: values that the chart shows at least;
// without one, the ends of the values are named. at: the step that is shown.
function plot({ title, label, curves, marks, range, first = 0, last, at = null, axis }) {
  const drawn = [...curves.flatMap(({ points }) => points.map(([, value]) => value)), ...marks.map(([value]) => value)];
  const values = drawn.filter(Number.isFinite);
  const low = Math.min(...range, ...values);
  const high = Math.max(...range, ...values);
  const pad = 0.06 * (high - low) || 1;
  const x = (step) => (LEFT + ((step - first) / (last - first || 1)) * (WIDE - LEFT - 4)).toFixed(1);
  const y = (value) => (HIGH - BOTTOM - ((value - low + pad) / (high - low + 2 * pad)) * (HIGH - BOTTOM - TOP)).toFixed(1);
  const line = (kind, anchor, [value, name, shift]) => `
    <line class="${kind}" x1="${LEFT}" x2="${WIDE - 4}" y1="${y(value)}" y2="${y(value)}"/>
    <text x="${anchor === "end" ? WIDE - 6 : LEFT + 2}" y="${Number(y(value)) + shift}" text-anchor="${anchor}">${name}</text>`;
  const named = range.length > 0;
  const ends = named || !values.length ? [] : [[low, -4], [high, 12]];
  const below = ends.map(([value, shift]) => line("grid", "start", [value, shortened(value, high - low), shift]));
  const above = marks.map((mark) => line(named ? "grid" : "mark", "end", mark));
  const paths = curves.map(({ kind, points }) => {
    const path = points.filter(([, value]) => Number.isFinite(value)).map(([step, value]) => `${x(step)},${y(value)}`).join(" ");
    return `<polyline class="${kind}" points="${path}"/>`;
  });
  const now = at === null ? "" : `<line class="now" x1="${x(at)}" x2="${x(at)}" y1="${TOP}" y2="${HIGH - BOTTOM}"/>`;
  return `<figure><svg viewBox="0 0 ${WIDE} ${HIGH}" role="img" aria-label="${escaped(label)}">
    ${below.join("")}${paths.join("")}${now}${above.join("")}
    <text x="${LEFT}" y="${HIGH - 5}">${axis[0]}</text>
    <text x="${WIDE - 4}" y="${HIGH - 5}" text-anchor="end">${axis[1]}</text></svg>
    <figcaption>${escaped(title)}</figcaption></figure>`;
}
