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
    stored = (unpack(data, "rewards").reshape(steps, -1).astype(float) - data["zero"]) / data["unit"]
    assert np.abs(stored - rewards).max() <= 0.5 / data["unit"] + 1e-6
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


@needs_browser
@pytest.mark.parametrize(("task", "action"), [("forage", "discrete"), ("puffer", "continuous")])
def test_a_browser_shows_the_pixels_of_the_renderer_in_any_order_of_frames(task, action, tmp_path):
    env = ParticleGrid(task, action, 2, 40, 60, 60, vision=3, lifespan=5, max_episode_steps=7, walls=0.02)
    title = "</script><script>throw 1</script>"  # a title that a user might choose
    replay, fields, _ = record(env, 20, world=1, title=title)
    replay.write(tmp_path / "a.html")
    with Page(tmp_path / "a.html", tmp_path / "profile") as page:
        assert page.run("document.title") == title
        page.run("window.replay.player.playing = false")
        for k in (0, 19, 3, 12, 11, 0):
            pixels = page.run(f"""(() => {{
                const {{ world, seek, run }} = window.replay;
                seek({k});
                return Array.from(world.context.getImageData(0, 0, run.width, run.height).data);
            }})()""")
            assert (np.reshape(pixels, (60, 60, 4))[..., :3] == PALETTE[fields[k]]).all()
        assert page.errors == []
    assert (PALETTE[fields[-1]] == frame(env.state, env.world, 1)).all()
    assert FOOD in fields


@needs_browser
def test_a_browser_plays_automatically_and_follows_the_clicked_agent(tmp_path):
    env = ParticleGrid("group", "continuous", agents=40, height=30, width=44, vision=3)
    replay, *_ = record(env, 30)
    replay.write(tmp_path / "a.html")
    row, column = (int(x) - 3 for x in env.state.position[:, 7])
    middle = 264 // 7 * 3
    with Page(tmp_path / "a.html", tmp_path / "profile") as page:
        page.run("window.replay.seek(0)")
        page.wait(0.5)
        assert 3 <= page.run("window.replay.world.frame") <= 25
        page.run("{const s = document.getElementById('scrub'); s.value = 29; s.dispatchEvent(new Event('input'));}")
        box = page.run("document.getElementById('view').getBoundingClientRect().toJSON()")
        zoom = page.run("window.replay.pixelsPerCell()")  # the screen of the test has a ratio of 1
        assert zoom == min(box["width"] / 44, box["height"] / 30) // 1
        x = box["x"] + box["width"] / 2 + (column + 0.5 - 22) * zoom
        y = box["y"] + box["height"] / 2 + (row + 0.5 - 15) * zoom
        page.click(x, y)
        page.wait(0.2)
        assert page.run("document.getElementById('who').textContent") == "What agent 7 sees"
        assert page.run("document.getElementById('facts').textContent").startswith(
            f"row {row}, column {column}, reward"
        )
        side = page.run("document.getElementById('sees').width")
        pixels = page.run(
            f"Array.from(document.getElementById('sees').getContext('2d').getImageData(0, 0, {side}, {side}).data)"
        )
        seen = np.reshape(pixels, (side, side, 4))[..., :3].copy()
        own = seen[middle : middle + side // 7, middle : middle + side // 7]
        assert (own[[0, -1]] == 255).all(), "the agent itself has a white frame"
        assert (own[:, [0, -1]] == 255).all()
        own[:] = own[side // 14, side // 14]
        wanted = PALETTE[env.observations[7, :49].reshape(7, 7)].repeat(side // 7, 0).repeat(side // 7, 1)
        assert (seen == wanted).all(), "all cells have one size"
        page.key("ArrowLeft")
        assert page.run("window.replay.world.frame") == 28
        page.key(" ")
        page.wait(0.3)
        assert page.run("window.replay.player.playing")
        page.screenshot(tmp_path / "shot.png")
        assert page.errors == []


@needs_browser
@pytest.mark.parametrize("size", [(1200, 800), (1013, 640), (390, 844)])
def test_all_cells_have_one_size_at_every_zoom(size, tmp_path):
    env = ParticleGrid("scatter", "discrete", agents=60, height=50, width=70, vision=3)
    replay, *_ = record(env, 3)
    replay.write(tmp_path / "a.html")
    with Page(tmp_path / "a.html", tmp_path / "profile", size) as page:
        page.run("window.replay.player.playing = false")
        for zoom in ("window.replay.player.zoom", 1, 1.7, 2, 3.99, 8.5, 0.7, 0.3):
            page.run(f"window.replay.player.zoom = {zoom}")
            pixels = page.run("window.replay.pixelsPerCell()")
            assert (pixels if pixels >= 1 else 1 / pixels) % 1 == pytest.approx(0, abs=1e-9)
        page.run("window.replay.player.zoom = 3.4; window.replay.player.row = 10.3")
        page.wait(0.1)
        picture = page.run("""(() => {
            const view = document.getElementById("view");
            return Array.from(view.getContext("2d").getImageData(0, 0, view.width, view.height).data);
        })()""")
        width = page.run("document.getElementById('view').width")
        agent = (np.reshape(picture, (-1, width, 4))[..., :3] == PALETTE[AGENT_1]).all(-1)
        edges = np.flatnonzero(np.diff(agent.astype(int), axis=1).any(0))  # columns at which agents begin or end
        assert len(edges) > 5
        assert len(set(edges % 3)) == 1


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
        charts = page.run("window.replay.plots.map(({ low, high, name, line }) => ({ low, high, name, line }))")
        assert page.run("document.getElementById('purpose').textContent") == "A sentence"
        assert page.run("document.getElementById('unit').textContent").startswith("apples. Dashed lines: random")
        assert page.errors == []
    assert [chart["name"] for chart in charts] == 2 * (teams or [""])
    scores = charts[: env.task.teams]
    assert {(chart["low"], chart["high"]) for chart in scores} == {(-7, 9)}
    assert np.array_equal(np.transpose([chart["line"] for chart in scores]), replay.data()["scores"])
    rewards = [env.rewards[env.team(k) & replay.agents].mean() for k in range(env.task.teams)]
    assert [chart["line"][-1] for chart in charts[env.task.teams :]] == pytest.approx(rewards, abs=0.01)


@needs_browser
def test_a_page_with_several_runs_shows_the_selected_one(tmp_path):
    cases = [("forage", "discrete"), ("group", "continuous"), ("scatter", "discrete")]
    envs = [ParticleGrid(task, action, agents=20, height=20 + k, width=30) for k, (task, action) in enumerate(cases)]
    replays, fields, _ = zip(*(record(env, 5, title=f"run {k}") for k, env in enumerate(envs)), strict=True)
    write_page(tmp_path / "a.html", replays)
    with Page(tmp_path / "a.html", tmp_path / "profile") as page:
        assert page.run("document.title") == "run 0"
        for k in (2, 1, 0):
            page.run(f"document.getElementById('runs').value = {k}; document.getElementById('runs').onchange()")
            page.until(f"window.replay && document.title === 'run {k}'")
            assert page.run("document.getElementById('runs').value") == str(k)
            page.run("window.replay.player.playing = false; window.replay.seek(4)")
            codes = page.run("Array.from(window.replay.world.codes)")
            assert np.array_equal(np.reshape(codes, (20 + k, 30)), fields[k][4])
        assert page.errors == []
