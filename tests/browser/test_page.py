"""The page is one file without a network, its worlds are those of the engine, and its controls do what they say."""

import base64
import json
import re
import zlib

import numpy as np
import pytest

from bench.chromium import OPEN, Page
from particle_grid import web
from particle_grid.api import load_policy
from particle_grid.browser import contents, page
from particle_grid.browser.networks import policy_description
from particle_grid.env import ACTIONS
from particle_grid.learn import checkpoint
from particle_grid.runs.load import shipped_path, shipped_tasks
from particle_grid.sim import tasks
from particle_grid.sim.world import World
from tests.cases import NETWORK, needs_browser

MOST_BYTES = 2_000_000
GROUP = "task=group&seed=3&agents=256"


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """Return a page with all tasks, and policies for each in both action forms."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    page.write(path, shipped_tasks(), [])
    return path


@pytest.fixture
def browser(everything, tmp_path):
    with Page(everything.as_uri(), tmp_path / "profile", (1440, 900)) as opened:
        yield opened
        assert not opened.errors


def data_of(path):
    """Return what Python wrote into a page."""
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text())[1])
    return data | {"tasks": json.loads(zlib.decompress(base64.b64decode(data["tasks"])))}


def visit(browser, link):
    """Open a link, and wait until its moment is shown."""
    browser.run("page.state.loading = true")
    browser.run(f"location.hash = {json.dumps('#' + link)}")
    browser.until(OPEN)


def change(browser, control, value):
    """Choose a value of a control as a user does, and wait until the worlds show it."""
    browser.run(
        f"""(() => {{ const control = document.getElementById({json.dumps(control)});
        control.value = {json.dumps(value)};
        control.dispatchEvent(new Event("change")); }})()"""
    )
    browser.wait(0.1)
    browser.until(OPEN)


def press(browser, control):
    """Click the middle of a control."""
    x, y = browser.run(
        f"""(() => {{ const control = document.querySelector({json.dumps(control)});
        control.scrollIntoView({{ block: "center" }});
        const box = control.getBoundingClientRect();
        return [box.x + box.width / 2, box.y + box.height / 2]; }})()"""
    )
    browser.click(x, y)


def test_a_page_with_every_task_and_policy_is_one_small_file_without_a_network(everything):
    text = everything.read_text("utf-8")
    assert len(text.encode()) < MOST_BYTES
    assert not re.search(NETWORK, text)
    known = data_of(everything)
    assert [task["name"] for task in known["tasks"]] == shipped_tasks()
    for task in known["tasks"]:
        assert task["purpose"]
        assert task["look"]
        assert all("colour" not in label for label in task["legend"].values())
        assert all(task["players"][action] for action in ACTIONS)
        assert len(task["sizes"]) == len(contents.SIZES)


@pytest.mark.parametrize("task", shipped_tasks())
@pytest.mark.parametrize("agents", contents.SIZES)
def test_worlds_of_every_size_are_as_dense_as_in_training(task, agents):
    trained = World(**getattr(tasks.load(task), "settings", {}).get("world", {}))
    world = contents.resized(trained, agents)
    assert world.worlds * world.agents == agents
    assert world.agents / (world.height * world.width) == pytest.approx(trained.agents / trained.height**2, rel=0.03)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("task", shipped_tasks())
def test_weights_on_the_page_differ_by_half_a_step_at_most(task, action, everything):
    known = data_of(everything)
    number = next(each for each in known["tasks"] if each["name"] == task)["players"][action][0]["policy"]
    exact = policy_description(load_policy(task, action).policy)["records"]["weights"]
    for field, original in zip(known["policies"][number]["records"]["weights"], exact, strict=True):
        if "step" in field:
            stored = np.frombuffer(zlib.decompress(base64.b64decode(field["data"])), np.uint8).reshape(2, -1)
            numbers = stored[0] + 256 * stored[1].astype(np.int64)
            values = ((numbers >> 1) ^ -(numbers & 1)) * field["step"]
            wanted = np.frombuffer(zlib.decompress(base64.b64decode(original["data"])), np.float16)
            np.testing.assert_allclose(values, wanted, rtol=1e-6, atol=0.51 * field["step"])
        else:
            assert field == original


def test_the_command_adds_policies_of_ones_own_and_opens_on_their_task(call, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    checkpoint.save(folder / "checkpoint.pt", checkpoint.load(shipped_path("center", "discrete")))
    code, out, err = call(web.main, "out=own.html", "task=forage", "checkpoint=mine/checkpoint.pt")
    assert (code, err) == (0, "")
    assert re.fullmatch(r"Saved: own\.html \(\d\.\d\d MB\)\n", out)
    first, second = data_of(tmp_path / "own.html")["tasks"]
    assert (first["name"], second["name"]) == ("center", "forage")
    assert [player["name"] for player in first["players"]["discrete"]] == ["policy", "mine"]
    assert [player["name"] for player in first["players"]["continuous"]] == ["policy"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("out=page.txt",), "page.txt does not name a page: use a name that ends in .html."),
        (("out=",), "out= is not a path"),
        (("out=null",), "None does not name a page"),
        (("checkpoint=nowhere/*.pt",), "matches no file"),
        (("checkpoint=nothing.pt",), "nothing.pt"),
    ],
)
def test_what_cannot_become_a_page_is_refused_in_one_sentence(arguments, reason, call):
    code, out, err = call(web.main, *arguments)
    assert (code, out) == (1, "")
    assert reason in err
    assert err.count("\n") == 1


@needs_browser
def test_the_page_opens_on_a_gallery_of_its_tasks_from_which_one_opens_a_task(browser):
    cards = browser.run(
        """[...document.querySelectorAll("#cards a")].map((card) => ({ link: card.getAttribute("href"),
        words: card.querySelector("p").textContent, pictures: card.querySelectorAll("canvas").length,
        scores: [...card.querySelectorAll("figcaption b")].map((each) => Number(each.textContent)) }))"""
    )
    assert [card["link"] for card in cards] == [f"#task={name}" for name in shipped_tasks()]
    assert all(card["words"] and card["pictures"] == 2 for card in cards)
    for name, card in zip(shipped_tasks(), cards, strict=True):
        assert card["scores"] == pytest.approx([load_policy(name, action).score for action in ACTIONS], abs=0.006)
    browser.until("document.querySelectorAll('#cards canvas.done').length >= 2")
    pixels = browser.run(
        """(() => { const canvas = document.querySelector("#cards canvas.done");
        return Array.from(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data); })()"""
    )
    assert len(np.unique(np.reshape(pixels, (-1, 4)), axis=0)) > 1
    press(browser, "#cards a[href='#task=forage'] .open")
    browser.until(f"page.state.task?.name === 'forage' && {OPEN}")
    assert browser.run("getComputedStyle(document.getElementById('gallery')).display") == "none"
    press(browser, "#tasks button[value='']")
    browser.until("page.state.gallery && !page.state.playing")
    assert browser.run("getComputedStyle(document.querySelector('main')).display") == "none"


@needs_browser
@pytest.mark.parametrize("size", [(1440, 900), (1200, 713), (1024, 600)])
@pytest.mark.parametrize("link", [GROUP, "task=predator_prey"])
def test_all_controls_are_in_the_window_at_once(size, link, everything, tmp_path):
    with Page(everything.as_uri(), tmp_path / "profile", size) as opened:
        opened("Emulation.setDeviceMetricsOverride", width=size[0], height=size[1], deviceScaleFactor=1, mobile=False)
        visit(opened, link)
        opened.run("window.dispatchEvent(new Event('resize'))")
        outside, covered = opened.run(
            """(() => { const bar = document.querySelector(".bar");
            const boxes = [...bar.querySelectorAll("button, select, input, output")].filter((each) => each.offsetParent)
              .map((each) => each.getBoundingClientRect());
            const inside = ({ top, right, bottom }) => top >= 0 && right <= innerWidth && bottom <= innerHeight;
            const worlds = page.sides().map(({ picture }) => picture.canvas.getBoundingClientRect());
            const { top } = bar.getBoundingClientRect();
            return [boxes.filter((box) => !inside(box)).length, worlds.filter(({ bottom }) => bottom > top).length];
            })()"""
        )
        assert outside == 0
        assert covered == 0 or size[1] < 700
        assert not opened.errors


@needs_browser
def test_both_worlds_are_zoomed_to_the_same_part(browser):
    visit(browser, f"{GROUP}&t=1")
    browser.key("+")
    browser.key("+")
    factors, middles = browser.run(
        """[page.sides().map(({ picture: { factor, whole } }) => factor / whole),
        page.sides().map(({ picture }) => picture.middle)]"""
    )
    assert factors[0] == factors[1] > 1
    assert middles[0] == middles[1]
    browser.key("0")
    assert browser.run("page.sides().map(({ picture: { factor, whole } }) => factor / whole)") == [1, 1]


@needs_browser
@pytest.mark.parametrize("player", ["policy", "script", "random"])
def test_worlds_on_the_page_are_those_of_the_engine(player, browser):
    visit(browser, f"{GROUP}&t=40&left=discrete:{player}&right=continuous:{player}")
    same = browser.run(
        f"""(async () => {{
          const known = JSON.parse(document.getElementById("data").textContent);
          const worker = page.data().worker.replaceAll("self.", "({{}}).");
          const [Engine] = new Function(worker + "; return [Engine];")();
          const {{ task, sides }} = page.state;
          const same = [];
          for (const [k, side] of page.sides().entries()) {{
            const engine = await Engine.load(page.data().bytes);
            const world = await engine.world(task.sizes[0][sides[k].action]);
            const number = task.players[sides[k].action][0].policy;
            const source = "{player}" === "policy" ? await engine.policy(known.policies[number], world) : "{player}";
            world.reset(3);
            for (let step = 0; step < 40; step += 1) world.step(source);
            const {{ rewards, places }} = side.frame;
            const {{ width, vision }} = world.description;
            const cell = (k) => Math.floor(world.position[k]) - vision;
            same.push(rewards.every((reward, i) => reward === world.rewards[i]));
            same.push(places.every((place, i) => place === cell(i) * width + cell(world.agents + i)));
          }}
          return same;
        }})()"""
    )
    assert same == [True] * 4


@needs_browser
def test_the_controls_of_time_pause_step_and_restart(browser):
    visit(browser, f"{GROUP}&t=12&agent=7")
    assert browser.run("[page.state.steps, page.state.agent, page.state.seed, page.state.playing]") == [12, 7, 3, False]
    press(browser, "#step")
    browser.until("page.state.steps === 13")
    press(browser, "#play")
    browser.until("page.state.steps > 16")
    press(browser, "#play")
    assert not browser.run("page.state.playing")
    for k in range(3):
        press(browser, f"#speed button[value='{k}']")
        browser.until(f"page.state.speed === {k} && page.state.playing")
    press(browser, "#play")
    press(browser, "#restart")
    browser.until("page.state.steps === 0")


@needs_browser
def test_the_controls_of_the_worlds_start_other_worlds(browser):
    visit(browser, f"{GROUP}&t=12")
    change(browser, "seed", "5")
    assert browser.run("page.state.seed") == 5
    change(browser, "agents", "1")
    assert browser.run("page.sides()[0].frame.places.length") == 512
    change(browser, "right-player", "script")
    change(browser, "left-action", "continuous")
    assert browser.run("page.state.sides") == [
        {"action": "continuous", "player": "policy"},
        {"action": "continuous", "player": "script"},
    ]
    press(browser, "#tasks button[value='forage']")
    browser.until(f"page.state.task.name === 'forage' && {OPEN}")
    browser.run("page.state.playing = true")
    browser.until("location.hash.startsWith('#task=forage&seed=5&t=')")


@needs_browser
def test_scores_of_both_worlds_are_compared_with_random_moves_and_the_script(browser):
    visit(browser, f"{GROUP}&t=60&left=discrete:script&right=discrete:random")
    browser.until("[...page.references.values()].every(Boolean)")
    press(browser, "#step")
    browser.until("document.querySelectorAll('#charts polyline').length === 2")
    browser.until("[...document.querySelectorAll('.score')].every((each) => /[0-9][.][0-9]{2}/.test(each.textContent))")
    script, random = (
        float(text.replace("\N{MINUS SIGN}", "-").removesuffix("score"))
        for text in browser.run("[...document.querySelectorAll('.score')].map((each) => each.textContent)")
    )
    assert script > 0.4
    assert abs(random) < 0.3


@needs_browser
def test_the_controls_of_looks_change_colours_and_trails(browser):
    visit(browser, f"{GROUP}&t=12")
    for colour in ("reward", "value", "action", "team"):
        change(browser, "colour", colour)
        assert browser.run("page.state.colour") == colour
        assert browser.run("document.getElementById('legend').children.length > 0")
    press(browser, "#trails")
    assert not browser.run("page.state.trails")
    press(browser, "#theme")
    browser("Page.reload")
    browser.until("window.page && page.ready()")
    assert browser.run("document.documentElement.dataset.theme") == "dark", "it is remembered"
    assert browser.run("document.title").startswith("group \N{EN DASH} particle_grid")


@needs_browser
def test_an_agent_is_selected_steered_and_released(browser):
    visit(browser, f"{GROUP}&t=5")
    x, y, nearest = browser.run(
        """(() => { const { frame, picture } = page.sides()[0]; const box = picture.canvas.getBoundingClientRect();
        const place = frame.places[31]; return [box.x + (place % frame.columns + 0.5) * box.width / frame.columns,
        box.y + (Math.floor(place / frame.columns) + 0.5) * box.height / frame.rows, 31]; })()"""
    )
    browser.click(x, y)
    browser.until(f"page.state.agent === {nearest}")
    browser.until(
        "document.querySelectorAll('.eye').length === 2 && document.querySelectorAll('.chances').length === 2"
    )
    press(browser, "#next")
    browser.until(f"page.state.agent === {nearest + 1}")
    press(browser, "#steer-left")
    browser.until("page.round()?.running")
    browser("Input.dispatchKeyEvent", type="keyDown", key="ArrowUp")
    browser.until("page.round().left < 96")
    assert browser.run("page.round().move()") == [-1, 0]
    browser.key("Escape")
    browser.until("page.state.agent === null")


@needs_browser
def test_a_round_is_timed_compared_with_the_script_and_the_policy_and_shown_again(browser):
    visit(browser, f"{GROUP}&t=5&agent=7")
    press(browser, "#steer-left")
    browser.until("page.round()?.running")
    browser.until("document.getElementById('round').textContent.includes('Join your own colour')")
    browser("Input.dispatchKeyEvent", type="keyDown", key="ArrowUp")
    browser.until("!page.round().running && page.round().rivals.length === 2")
    assert browser.run("page.state.steps") == 105
    earned = browser.run("page.round().earned")
    assert browser.run("page.round().moves.length") == 100
    browser.until(r"/the script .[0-9.]+, the policy .[0-9.]+/.test(document.getElementById('round').textContent)")
    press(browser, "#again")
    browser.until("page.round()?.played && !page.round().running")
    assert browser.run("page.state.steps") == 105
    assert browser.run("page.round().earned") == earned


@needs_browser
def test_what_the_policy_earns_in_a_round_is_what_the_agent_earns_without_one(browser):
    visit(browser, f"{GROUP}&t=5&agent=7")
    earned = browser.run(
        """(async () => { const { worker } = page.sides()[0];
        const nobody = { agent: 7, steer: null, scripted: false };
        await worker.ask("begin", nobody);
        return (await worker.ask("advance", { ...nobody, steps: 100 })).earned; })()"""
    )
    visit(browser, f"{GROUP}&t=5&agent=7&left=discrete:policy")
    press(browser, "#steer-left")
    browser.until("page.round() && !page.round().running && page.round().rivals.length === 2")
    assert browser.run("page.round().rivals[1]") == ["policy", earned]


@needs_browser
@pytest.mark.parametrize(("tool", "code"), [("wall", 2), ("food", 1), ("erase", 0)])
def test_the_mouse_paints_both_worlds(tool, code, browser):
    visit(browser, f"{GROUP}&t=1")
    change(browser, "tool", tool)
    press(browser, "#left-world")
    browser.until("page.state.painted")
    found = browser.run(
        """page.sides().map(({ frame: { rows, columns, cells } }) => {
        const middle = (rows / 2) * columns + columns / 2;
        return [-1, 0, 1].flatMap((row) => [-1, 0, 1].map((column) => cells[middle + row * columns + column])); })"""
    )
    assert all({*cells} & {code} and not {*cells} - {code, 3, 4, 5, 6} for cells in found)


@needs_browser
@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ('"module":"', '"module":"AAAA', "The page is damaged"),
        ('"observation_size":128', '"observation_size":129', "The policy takes observations of 129 bytes"),
        ("[DATA.worker]", '["WebAssembly.validate = () => false;", DATA.worker]', "This browser has no SIMD"),
    ],
)
def test_what_goes_wrong_is_said_in_one_sentence_on_the_page(before, after, sentence, everything, tmp_path):
    broken = tmp_path / "broken.html"
    broken.write_text(everything.read_text("utf-8").replace(before, after), "utf-8")
    with Page(broken.as_uri(), tmp_path / "profile", ready="document.getElementById('problem')?.textContent") as opened:
        text = opened.run("document.getElementById('problem').textContent")
        assert sentence in text
        assert "\n" not in text
