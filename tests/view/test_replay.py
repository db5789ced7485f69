"""A replay page holds every frame, and a browser shows them as the renderer does."""

import base64
import json
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from particle_grid import ParticleGrid
from particle_grid.sim import tasks
from particle_grid.sim.task import team_names
from particle_grid.sim.world import AGENT_1, FOOD, World
from particle_grid.view.frame import PALETTE, cells, frame
from particle_grid.view.replay import JUMP, About, Replay, write_page
from tests.cases import needs_jit
from tests.support.test_atomic import no_file_beyond
from tests.view.browser import BROWSER, Page

NOTHING = About()
KINDS = {"start": "<u2", "jumps": "<u2", "changes": "<u4", "gaps": "<u4"}


def record(env, steps, world=0, title="a title", about=NOTHING):
    """Return a replay of random play, and the codes and rewards of each frame."""
    replay = Replay(env.world, title, env.legend(), world=world, about=about)
    fields = []
    rewards = []
    agents = slice(world * env.world.agents, (world + 1) * env.world.agents)
    generator = np.random.default_rng(0)
    env.reset(0)
    for _ in range(steps):
        if env.discrete:
            env.step(generator.integers(0, 3, (env.num_agents, 2), dtype=np.int32))
        else:
            env.step(generator.uniform(-1, 1, (env.num_agents, 2)).astype(np.float32))
        replay.add(env.state, env.rewards, env.score(replay.agents))
        fields.append(cells(env.state, env.world, world).copy())
        rewards.append(env.rewards[agents].copy())
    return replay, np.array(fields), np.array(rewards)


def unpack(data, name):
    dtype = np.dtype(KINDS.get(name, np.uint8))
    planes = np.frombuffer(zlib.decompress(base64.b64decode(data["arrays"][name])), np.uint8)
    return planes.reshape(dtype.itemsize, -1).T.copy().view(dtype).ravel()


def played(data):
    """Decode the page plainly: yield the codes of each frame."""
    data = json.loads(json.dumps(data))
    ground = unpack(data, "ground").copy()
    at = unpack(data, "start").reshape(2, -1).astype(np.int64)
    moves, jumps = unpack(data, "moves").reshape(-1, data["agents"]), iter(unpack(data, "jumps").reshape(-1, 2))
    gaps = list(unpack(data, "gaps"))
    codes = list(unpack(data, "codes"))
    side = 2 * data["reach"] + 1
    for k in range(data["frames"]):
        if k:
            for i, move in enumerate(moves[k - 1].tolist()):
                step = (move // side - data["reach"], move % side - data["reach"])
                at[:, i] = next(jumps) if move == JUMP else at[:, i] + step
            cell = 0
            for _ in range(unpack(data, "changes")[k - 1]):
                cell += int(gaps.pop(0))
                ground[cell] = codes.pop(0)
        here = at[0] * data["width"] + at[1]
        if data["eats"]:
            ground[here] = 0
        shown = ground.copy()
        shown[here] = unpack(data, "colours")
        yield shown.reshape(data["height"], data["width"])


@pytest.mark.parametrize("action", ["discrete", "continuous"])
@pytest.mark.parametrize("task", tasks.names())
@settings(max_examples=4)
@given(
    worlds=st.integers(1, 2),
    lifespan=st.sampled_from([0, 3]),
    max_episode_steps=st.sampled_from([0, 4]),
    speed=st.sampled_from([0.3, 1, 2.5, 20]),
    steps=st.integers(1, 9),
)
def test_every_frame_and_every_reward_is_stored(task, action, worlds, lifespan, max_episode_steps, speed, steps):
    options = {"lifespan": lifespan, "max_episode_steps": max_episode_steps, "speed": speed, "walls": 0.02}
    env = ParticleGrid(task, action, worlds, 30, 60, 60, vision=3, **options)
    replay, fields, rewards = record(env, steps, worlds - 1)
    data = replay.data()
    assert (np.array(list(played(data))) == fields).all()
    stored = (unpack(data, "rewards").reshape(steps, -1).astype(float) - data["reward_zero"]) / data["reward_unit"]
    assert np.abs(stored - rewards).max() <= 0.5 / data["reward_unit"] + 1e-6
    assert np.shape(data["scores"]) == (steps, env.task.teams)
    if task == "forage":
        assert data["eats"]


@needs_jit("1.2 million agent-steps: ten minutes of plain Python")
def test_four_thousand_agents_and_three_hundred_steps_take_less_than_three_megabytes(tmp_path):
    env = ParticleGrid("forage", "discrete", agents=4096, height=512, width=512)
    env.reset(0)
    replay, generator = Replay(env.world, "", env.legend()), np.zeros(1, np.uint64)
    for _ in range(300):
        env.step(env.scripted_actions(generator))
        replay.add(env.state, env.rewards, env.score(replay.agents))
    replay.write(tmp_path / "a.html")
    assert (tmp_path / "a.html").stat().st_size < 3e6


@pytest.mark.parametrize("name", ["a.htm", "none/a.html"])
def test_invalid_paths_worlds_and_rates_and_empty_replays_are_refused(tmp_path, name):
    env = ParticleGrid("forage", "discrete", agents=5, height=20, width=20)
    replay, *_ = record(env, 1)
    with pytest.raises(ValueError, match=r"ends in \.html|there is no folder"):
        replay.write(tmp_path / name)
    with pytest.raises(ValueError, match="0 steps"):
        Replay(env.world, "", {}).write(tmp_path / "a.html")
    with pytest.raises(ValueError, match="world=1 is out of range"):
        Replay(env.world, "", {}, world=1)
    with pytest.raises(ValueError, match="world=None is out of range"):
        Replay(env.world, "", {}, world=None)
    for fps in (0, np.nan, np.inf, "a", None):
        with pytest.raises(ValueError, match=f"fps={fps} is out of range"):
            Replay(env.world, "", {}, fps)
    with pytest.raises(ValueError, match="at least one replay"):
        write_page(tmp_path / "a.html", [])
    assert not list(tmp_path.iterdir())


def test_a_field_larger_than_a_page_can_hold_is_refused():
    Replay(World(agents=8, height=11, width=1 << 16), "", {})
    for height, width in ((11, (1 << 16) + 1), (200_000, 11)):
        with pytest.raises(ValueError, match=rf"A field of {height} x {width} cells is too large for a replay"):
            Replay(World(agents=8, height=height, width=width), "", {})


@pytest.mark.parametrize("rewards", [np.zeros(4), np.zeros((5, 1)), np.full(5, np.nan), np.full(5, -np.inf)])
def test_rewards_that_are_not_one_number_for_each_agent_are_refused(rewards):
    env = ParticleGrid("forage", "discrete", agents=5, height=20, width=20)
    env.reset(0)
    with pytest.raises(ValueError, match=r"rewards .* are invalid: give a finite number for each agent"):
        Replay(env.world, "", {}).add(env.state, rewards, env.score())


def test_a_full_disk_keeps_the_old_page(tmp_path):
    env = ParticleGrid("forage", "discrete", agents=5, height=20, width=20)
    replay, *_ = record(env, 1)
    (tmp_path / "a.html").write_text("before")
    with no_file_beyond(1000), pytest.raises(OSError, match=r"could not be written \(File too large"):
        replay.write(tmp_path / "a.html")
    assert [(x.name, x.read_text()) for x in tmp_path.iterdir()] == [("a.html", "before")]


needs_browser = pytest.mark.skipif(not BROWSER, reason="needs Chromium on the path")


PIXELS = """(() => {
    const { cells, image } = page.sides()[0].picture;
    return Array.from(cells.getContext("2d").getImageData(0, 0, image.width, image.height).data);
})()"""


def seek(page, step):
    page.run(f"page.seek({step})")


@needs_browser
@pytest.mark.parametrize(("task", "action"), [("forage", "discrete"), ("puffer", "continuous")])
def test_a_browser_shows_the_pixels_of_the_renderer_in_any_order_of_frames(task, action, tmp_path):
    env = ParticleGrid(task, action, 2, 40, 60, 60, vision=3, lifespan=5, max_episode_steps=7, walls=0.02)
    title = "</script><script>throw 1</script>"  # a title that a user might choose
    replay, fields, _ = record(env, 20, world=1, title=title)
    replay.write(tmp_path / "a.html")
    with Page(tmp_path / "a.html", tmp_path / "profile") as page:
        assert page.run("document.title") == page.run("document.querySelector('h1').textContent") == title
        page.run("page.state.trails = false")
        for k in (0, 19, 3, 12, 11, 0):
            seek(page, k + 1)
            assert (np.reshape(page.run(PIXELS), (60, 60, 4))[..., :3] == PALETTE[fields[k]]).all()
        assert page.errors == []
    assert (PALETTE[fields[-1]] == frame(env.state, env.world, 1)).all()
    assert FOOD in fields


@needs_browser
def test_a_browser_plays_automatically_and_follows_the_clicked_agent(tmp_path):
    env = ParticleGrid("group", "continuous", agents=40, height=30, width=44, vision=3)
    replay, *_ = record(env, 30)
    replay.write(tmp_path / "a.html")
    row, column = (int(x) - 3 for x in env.state.position[:, 7])
    with Page(tmp_path / "a.html", tmp_path / "profile") as page:
        page.wait(0.5)
        assert 3 <= page.run("page.state.steps") <= 25
        change_scrub(page, 30)
        assert page.run("page.state.steps") == 30
        box = page.run("document.getElementById('left-world').getBoundingClientRect().toJSON()")
        page.click(box["x"] + (column + 0.5) * box["width"] / 44, box["y"] + (row + 0.5) * box["height"] / 30)
        page.until("document.querySelector('.eye')")
        assert page.run("document.getElementById('agent-title').textContent") == "Agent 7"
        reward = f"{env.rewards[7]:+.2f}".replace("-", "\N{MINUS SIGN}")
        shown = page.run("document.querySelector('.seen').textContent")
        assert f"row {row}, column {column}, last reward {reward}" in shown
        seen = page.run("[...document.querySelectorAll('.eye rect:not(.me)')].map((each) => each.getAttribute('fill'))")
        assert seen == [f"rgb({r},{g},{b})" for r, g, b in PALETTE[env.observations[7, :49]].tolist()]
        page.key("ArrowLeft")
        page.until("page.state.steps === 29")
        page.key(" ")
        page.until("page.state.playing && page.state.steps < 29")  # from the start again
        assert page.errors == []


def change_scrub(page, step):
    page.run(
        f"""(() => {{ const scrub = document.getElementById("scrub"); scrub.value = {step};
        scrub.dispatchEvent(new Event("input")); return page.seek({step}); }})()"""
    )


def wheel(page, turn, x=0.5, y=0.5):
    """Turn the mouse wheel at a point of the picture, given in shares of its size."""
    page.run(
        f"""(() => {{ const canvas = document.getElementById("left-world");
        const box = canvas.getBoundingClientRect();
        const point = {{ clientX: box.x + {x} * box.width, clientY: box.y + {y} * box.height }};
        canvas.dispatchEvent(new WheelEvent("wheel", {{ deltaY: {turn}, cancelable: true, ...point }})); }})()"""
    )


@needs_browser
@pytest.mark.parametrize("size", [(1200, 800), (1013, 640), (390, 844)])
def test_all_cells_have_one_size_at_every_zoom(size, tmp_path):
    env = ParticleGrid("scatter", "discrete", agents=60, height=50, width=70, vision=3)
    replay, *_ = record(env, 3)
    replay.write(tmp_path / "a.html")
    with Page(tmp_path / "a.html", tmp_path / "profile", size) as page:
        page.run("page.state.trails = false; page.seek(3)")
        for turn in (0, -70, -200, 35, -400, -2000, 800):
            wheel(page, turn, 0.3, 0.6)
            factor, whole = page.run("[page.sides()[0].picture.factor, page.sides()[0].picture.whole]")
            assert factor % 1 == 0
            assert 1 <= whole <= factor <= 64
        picture = page.run("""(() => {
            const view = document.getElementById("left-world");
            return Array.from(view.getContext("2d").getImageData(0, 0, view.width, view.height).data);
        })()""")
        width = page.run("document.getElementById('left-world').width")
        agent = (np.reshape(picture, (-1, width, 4))[..., :3] == PALETTE[AGENT_1]).all(-1)
        edges = np.flatnonzero(np.diff(agent.astype(int), axis=1).any(0))  # columns at which agents begin or end
        assert len(edges) > 2
        assert len(set(edges % factor)) == 1
        assert page.errors == []


@needs_browser
def test_zooming_keeps_the_cell_under_the_pointer_and_dragging_moves_the_picture(tmp_path):
    env = ParticleGrid("group", "discrete", agents=40, height=40, width=40, vision=3)
    replay, *_ = record(env, 5)
    replay.write(tmp_path / "a.html")
    under = """((x, y) => { const { picture, frame } = page.sides()[0];
        const box = picture.canvas.getBoundingClientRect();
        return picture.at({ clientX: box.x + x * box.width, clientY: box.y + y * box.height }, frame); })"""
    with Page(tmp_path / "a.html", tmp_path / "profile") as page:
        page.run("page.seek(1)")
        before = page.run(f"{under}(0.31, 0.62)")
        wheel(page, -600, 0.31, 0.62)
        assert page.run("page.view.zoom") > 3
        after = page.run(f"{under}(0.31, 0.62)")
        assert max(abs(after[axis] - before[axis]) for axis in before) <= 1
        x, y = page.run(
            "(({ x, y, width, height }) => [x + width / 2, y + height / 2])"
            "(document.getElementById('left-world').getBoundingClientRect())"
        )
        held = page.run(f"{under}(0.5, 0.5)")
        for kind, dx, dy in (("mousePressed", 0, 0), ("mouseMoved", 40, 20), ("mouseReleased", 40, 20)):
            page("Input.dispatchMouseEvent", type=kind, x=x + dx, y=y + dy, button="left", buttons=1, clickCount=1)
        moved = page.run(
            f"page.sides()[0].picture.at({{ clientX: {x + 40}, clientY: {y + 20} }}, page.sides()[0].frame)"
        )
        assert moved == held
        assert page.run("page.state.agent") is None, "dragging selects nobody"
        page.key("0")
        assert page.run("page.view.zoom") == 1
        page.key("+")
        assert page.run("page.view.zoom") > 1
        page.key("-")
        assert page.run("page.view.zoom") == 1
        assert page.errors == []


@needs_browser
def test_the_picture_stays_on_the_followed_agent(tmp_path):
    env = ParticleGrid("group", "discrete", agents=40, height=60, width=60, vision=3)
    replay, *_ = record(env, 20)
    replay.write(tmp_path / "a.html")
    with Page(tmp_path / "a.html", tmp_path / "profile") as page:
        page.run("page.seek(1)")
        page.key("n")
        page.until("page.state.agent === 0")
        page.run("page.zoomBy(3)")
        for step in (1, 10, 20):
            seek(page, step)
            shown = page.run("""(() => { const { picture, frame } = page.sides()[0];
                const [row, column] = [Math.floor(frame.places[0] / 60), frame.places[0] % 60];
                const off = (share, cell, size) => Math.abs(share * 60 - cell - 0.5) - size / 2;
                const { canvas, factor, middle } = picture;
                const [rows, columns] = [canvas.height / factor, canvas.width / factor];
                return [off(middle.row, row, rows), off(middle.column, column, columns)];
            })()""")
            assert max(shown) < 0


@needs_browser
@pytest.mark.parametrize("task", ["group", "predator_prey"])
def test_charts_show_the_range_and_references_of_each_team(task, tmp_path):
    env = ParticleGrid(task, "discrete", 2, 40, 40, 40, vision=3)
    teams = team_names(env.task)
    references = {"random": [-7.0] * env.task.teams, "script": [9.0] * env.task.teams}
    about = About("A sentence", "apples", teams, references)
    replay, *_ = record(env, 20, 1, about=about)
    replay.write(tmp_path / "a.html")
    with Page(tmp_path / "a.html", tmp_path / "profile") as page:
        seek(page, 20)
        charts = page.run("page.charts()")
        drawn = page.run("[...document.querySelectorAll('#charts figure')].map((each) => each.textContent)")
        assert page.run("document.getElementById('about').textContent").strip() == "A sentence"
        unit = page.run("document.getElementById('score-about').textContent")
        assert page.errors == []
    assert unit.startswith("Measured in: apples.")
    assert "Dashed lines: random actions and the script" in unit
    names = teams or ["all agents"]
    assert [chart["title"].split(":")[0] for chart in charts] == [
        *(f"score of {name}" for name in names),
        *(f"mean reward of {name}" for name in names),
    ]
    lines = [[value for _, value in chart["curves"][0]["points"]] for chart in charts]
    scores = charts[: env.task.teams]
    assert all([mark[:2] for mark in chart["marks"]] == [[-7, "random"], [9, "script"]] for chart in scores)
    for text in drawn[: env.task.teams]:
        assert all(word in text for word in ("random", "script", "\N{MINUS SIGN}7.0", "9.0", "step 20"))
    assert np.array_equal(np.transpose(lines[: env.task.teams]), replay.data()["scores"])
    rewards = [env.rewards[env.team(k) & replay.agents].mean() for k in range(env.task.teams)]
    assert [line[-1] for line in lines[env.task.teams :]] == pytest.approx(rewards, abs=0.01)


@needs_browser
def test_a_page_with_several_runs_shows_the_selected_one(tmp_path):
    cases = [("forage", "discrete"), ("group", "continuous"), ("scatter", "discrete")]
    envs = [ParticleGrid(task, action, agents=20, height=20 + k, width=30) for k, (task, action) in enumerate(cases)]
    replays, fields, _ = zip(*(record(env, 5, title=f"run {k}") for k, env in enumerate(envs)), strict=True)
    write_page(tmp_path / "a.html", replays)
    with Page(tmp_path / "a.html", tmp_path / "profile") as page:
        assert page.run("document.title") == "run 0"
        for k in (2, 1, 0):
            page.run(f"document.querySelector('#tasks button[value=\"{k}\"]').click()")
            page.until(f"page.ready() && document.title === 'run {k}'")
            seek(page, 5)
            codes = page.run("Array.from(page.sides()[0].frame.cells)")
            assert np.array_equal(np.reshape(codes, (20 + k, 30)), fields[k][4])
        page.run("page.state.loading = true; location.hash = 'task=1&t=3&agent=7'")
        page.until("page.ready()")
        assert page.run("[document.title, page.state.steps, page.state.agent]") == ["run 1", 3, 7]
        assert page.errors == []


@needs_browser
def test_speeds_are_multiples_of_the_rate_of_the_recording(tmp_path):
    env = ParticleGrid("group", "discrete", agents=20, height=20, width=30)
    replay, *_ = record(env, 40)
    replay.write(tmp_path / "a.html")
    with Page(tmp_path / "a.html", tmp_path / "profile") as page:
        speeds = page.run("[...document.querySelectorAll('#speed button')].map((each) => each.textContent)")
        assert speeds == [
            "\N{VULGAR FRACTION ONE QUARTER}\N{MULTIPLICATION SIGN}",
            "\N{VULGAR FRACTION ONE HALF}\N{MULTIPLICATION SIGN}",
            "1\N{MULTIPLICATION SIGN}",
            "3\N{MULTIPLICATION SIGN}",
            "10\N{MULTIPLICATION SIGN}",
        ]
        page.run("page.seek(1)")
        page.run("document.querySelector('#speed button[value=\"0\"]').click()")
        page.wait(1)
        assert 2 <= page.run("page.state.steps") <= 10  # of 5 in a second
