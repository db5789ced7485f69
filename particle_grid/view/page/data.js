// What Python wrote into the page.

const DATA = JSON.parse(document.getElementById("data").textContent);
const ACTIONS = ["discrete", "continuous"];
const SIDES = DATA.recordings ? ["left"] : ["left", "right"]; // names of the worlds that are shown
const SCRIPT = { name: "script", label: "script" };
const RANDOM = { name: "random", label: "random moves" };
const RECORDED = { name: "recorded", label: "recording" };

// Returns a text as HTML.
function escaped(text) {
  return text.replace(/[&<>"]/g, (letter) => `&#${letter.charCodeAt(0)};`);
}

async function inflate(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function inflateText(text) {
  return new TextDecoder().decode(await inflate(text));
}

// Inflate the module and the tasks. A page of recordings has no module, and a task for each recording.
async function unpack() {
  if (!window.DecompressionStream || (DATA.module && !(window.WebAssembly && window.Worker))) {
    throw new Error("This browser is too old for the page: use a version from 2023 or later.");
  }
  try {
    if (DATA.recordings) {
      DATA.tasks = DATA.recordings.map(taskOfRecording);
    } else {
      DATA.bytes = await inflate(DATA.module);
      DATA.worker = await inflateText(DATA.worker);
      DATA.tasks = JSON.parse(await inflateText(DATA.tasks));
    }
  } catch (error) {
    throw new Error(`The page is damaged (${error.message}): build it again.`);
  }
}

// Returns a task with one world, which has been recorded.
function taskOfRecording(recording, number) {
  const { title, purpose, unit, teams, legend, height, width, vision, agents } = recording;
  const world = { height, width, vision, worlds: 1 };
  return {
    name: String(number), title, purpose, look: "", unit, legend, recording, unscored: "", teams: teams.length ? teams : ["all agents"],
    players: { discrete: [], continuous: [] }, sizes: [{ agents, discrete: world, continuous: world }],
  };
}

function taskOf(name) {
  return DATA.tasks.find((task) => task.name === name);
}

// Returns what can play a task: policies, the script, random moves, and with two teams a policy against the script.
function playersOf(task, action) {
  const policies = task.players[action];
  if (task.recording) {
    return [RECORDED];
  }
  if (task.unscored) {
    return [...policies, RANDOM];
  }
  const against = task.teams.length < 2 ? [] : policies.flatMap((policy) => task.teams.map((name, team) => ({
    ...policy, name: `${policy.name}@${name}`, label: `${name}: ${policy.label}, ${task.teams[1 - team]}: script`, team,
  })));
  return [...policies, SCRIPT, RANDOM, ...against];
}

// Returns the message that loads a world.
function worldOf({ task, size, seed }, { action, player }) {
  if (task.recording) {
    return { recording: task.recording, agent: null };
  }
  const { policy, team = null } = playersOf(task, action).find((each) => each.name === player);
  return {
    bytes: DATA.bytes, world: task.sizes[size][action], policy: policy === undefined ? null : DATA.policies[policy], source: player,
    team, seed, agent: null,
  };
}
