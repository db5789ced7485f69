// What Python wrote into the page.

const DATA = JSON.parse(document.getElementById("data").textContent);
const ACTIONS = ["discrete", "continuous"];
const SCRIPT = { name: "script", label: "script" };
const RANDOM = { name: "random", label: "random moves" };

async function inflate(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Inflate the module and the tasks.
async function unpack() {
  if (!window.WebAssembly || !window.DecompressionStream || !window.Worker) {
    throw new Error("This browser is too old for the page: use a version from 2023 or later.");
  }
  try {
    DATA.bytes = await inflate(DATA.module);
    DATA.tasks = JSON.parse(new TextDecoder().decode(await inflate(DATA.tasks)));
  } catch (error) {
    throw new Error(`The page is damaged (${error.message}): build it again.`);
  }
}

function taskOf(name) {
  return DATA.tasks.find((task) => task.name === name);
}

// Returns what can play a task: policies, the script, random moves, and with two teams a policy against the script.
function playersOf(task, action) {
  const policies = task.players[action];
  if (task.unscored) {
    return [...policies, RANDOM];
  }
  const against = task.teams.length < 2 ? [] : policies.flatMap((policy) => task.teams.map((name, team) => ({
    ...policy, name: `${policy.name}@${name}`, label: `${name}: ${policy.label}, ${task.teams[1 - team]}: script`, team,
  })));
  return [...policies, SCRIPT, RANDOM, ...against];
}

// Returns the message to a worker that loads a world.
function worldOf({ task, size, seed }, { action, player }) {
  const { policy, team = null } = playersOf(task, action).find((each) => each.name === player);
  return {
    bytes: DATA.bytes, world: task.sizes[size][action], policy: policy === undefined ? null : DATA.policies[policy], source: player,
    team, seed, agent: null,
  };
}
