"""The engine in Node and in Chromium gives the bytes of the native environment."""

import base64
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from bench.chromium import Page
from particle_grid.browser import build
from particle_grid.browser.describe import world
from tests.browser.native import EVERY, SEED, Play, checksum, code, make
from tests.cases import needs_browser, needs_jit

ENGINE = Path(build.__file__).with_name("engine.js")
PLAY = Path(__file__).with_name("play.js")
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(not NODE, reason="needs Node.js on the path")
STEPS, MANY = 60, 2000


def expected(case, steps):
    """Return a description of a world before its reset, and the checksum of its steps."""
    env = make(*case)
    description = world(env)
    play, value = Play(env), 0
    for k in range(steps):
        play.step(k)
        value = checksum(env, value)
    return description, value


def in_node(folder, script):
    """Run a script that can use `Engine`, `EngineError`, `play` and `bytes`, and return what it prints, as JSON."""
    (folder / "engine.mjs").write_text(ENGINE.read_text("utf-8"), "utf-8")
    (folder / "play.mjs").write_text(PLAY.read_text("utf-8"), "utf-8")
    (folder / "kernels.wasm").write_bytes(code())
    head = (
        'import { readFileSync } from "fs";\n'
        'import { Engine, EngineError } from "./engine.mjs";\nimport { play } from "./play.mjs";\n'
        'const bytes = readFileSync("kernels.wasm");\n'
    )
    (folder / "main.mjs").write_text(head + script, "utf-8")
    process = subprocess.run([NODE, "main.mjs"], cwd=folder, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


@needs_node
@needs_jit("takes minutes")
@pytest.mark.parametrize("case", [("group", "continuous", "kinematic"), ("forage", "discrete", "inertial")])
def test_node_gives_the_bytes_of_the_native_environment(case, tmp_path):
    description, value = expected(case, STEPS)
    script = f"console.log(await play(Engine, bytes, {json.dumps(description)}, {SEED}, {STEPS}));"
    assert in_node(tmp_path, script) == value


@needs_browser
@needs_jit("takes hours")
@pytest.mark.slow
@pytest.mark.parametrize("task", sorted({case[0] for case in EVERY}))
def test_chromium_gives_the_bytes_of_the_native_environment(task, tmp_path):
    page = tmp_path / "page.html"
    known = {" ".join(case): expected(case, MANY) for case in EVERY if case[0] == task}
    descriptions = json.dumps({name: description for name, (description, _) in known.items()})
    page.write_text(
        f"""<script type="module">
{ENGINE.read_text("utf-8")}
{PLAY.read_text("utf-8")}
const bytes = Uint8Array.from(atob("{base64.b64encode(code()).decode()}"), (letter) => letter.charCodeAt(0));
const descriptions = {descriptions};
window.run = (name) => play(Engine, bytes, descriptions[name], {SEED}, {MANY});
</script>""",
        "utf-8",
    )
    with Page(page.as_uri(), tmp_path / "profile", ready="window.run") as browser:
        found = {name: browser.run(f"run({json.dumps(name)})") for name in known}
        assert not browser.errors
    assert found == {name: value for name, (_, value) in known.items()}


FAULTS = {
    "Engine.load(bytes.subarray(0, 500))": "The module is damaged",
    "Engine.load(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0]))": "not one of this simulator",
    "Engine.load(bytes).then((e) => e.world({...world, task: 'chess'}))": "no task chess",
    "Engine.load(bytes).then((e) => e.world(world)).then((w) => w.reset(-1))": "seed=-1",
    "Engine.load(bytes).then(async (e) => e.policy({observation_size: 5, action: 'discrete'}, await e.world(world)))": (
        "observations of 5 bytes"
    ),
    "(WebAssembly.validate = () => false, Engine.load(bytes))": "no SIMD",
}


@needs_node
@pytest.mark.parametrize("fault", FAULTS)
def test_bad_input_gets_one_sentence(fault, tmp_path):
    description = json.dumps(world(make("group", "discrete", "kinematic")))
    script = f"""const world = {description};
let error;
try {{ await ({fault}); }} catch (found) {{ error = found; }}
console.log(JSON.stringify([error instanceof EngineError, error.message]));"""
    known, message = in_node(tmp_path, script)
    assert known, message
    assert FAULTS[fault] in message
    assert "\n" not in message
