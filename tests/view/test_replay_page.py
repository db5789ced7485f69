"""In a browser, a recording is shown as the renderer shows its world: in any order, at every zoom, with its scores."""

import numpy as np
import pytest

from bench.chromium import Page
from particle_grid import ParticleGrid
from particle_grid.sim.task import team_names
from particle_grid.sim.world import AGENT_1, FOOD
from particle_grid.view.frame import PALETTE, frame
from particle_grid.view.replay import About, write_page
from tests.cases import needs_browser
from tests.view.test_replay import record

PIXELS = """(() => {
    const { cells, image } = page.sides()[0].picture;
    return Array.from(cells.getContext("2d").getImageData(0, 0, image.width, image.height).data);
})()"""


def seek(page, step):
    page.run(f"page.seek({step})")


@pytest.fixture
def short(tmp_path):
    """Return the path of a recording of five steps."""
    replay, *_ = record(ParticleGrid("group", "discrete", agents=40, height=40, width=40, vision=3), 5)
    replay.write(tmp_path / "a.html")
    return tmp_path / "a.html"


@needs_browser
@pytest.mark.parametrize(("task", "action"), [("forage", "discrete"), ("puffer", "continuous")])
def test_a_browser_shows_the_pixels_of_the_renderer_in_any_order_of_frames(task, action, tmp_path):
    env = ParticleGrid(task, action, 2, 40, 60, 60, vision=3, lifespan=5, max_episode_steps=7, walls=0.02)
    title = "</script><script>throw 1</script>"  # a title that a user might choose
    replay, fields, _ = record(env, 20, world=1, title=title)
    replay.write(tmp_path / "a.html")
    with Page((tmp_path / "a.html").as_uri(), tmp_path / "profile") as page:
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
    with Page((tmp_path / "a.html").as_uri(), tmp_path / "profile") as page:
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


def middle_of(page, name):
    return page.run(
        f"""(({{ x, y, width, height }}) => [x + width / 2, y + height / 2])(
        document.getElementById("{name}").getBoundingClientRect())"""
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
    with Page((tmp_path / "a.html").as_uri(), tmp_path / "profile", size) as page:
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
def test_zooming_keeps_the_cell_under_the_pointer_and_dragging_moves_the_picture(short, tmp_path):
    under = """((x, y) => { const { picture, frame } = page.sides()[0];
        const box = picture.canvas.getBoundingClientRect();
        return picture.at({ clientX: box.x + x * box.width, clientY: box.y + y * box.height }, frame); })"""
    with Page(short.as_uri(), tmp_path / "profile") as page:
        page.run("page.seek(1)")
        before = page.run(f"{under}(0.31, 0.62)")
        wheel(page, -600, 0.31, 0.62)
        assert page.run("page.view.zoom") > 3
        after = page.run(f"{under}(0.31, 0.62)")
        assert max(abs(after[axis] - before[axis]) for axis in before) <= 1
        x, y = middle_of(page, "left-world")
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
def test_two_fingers_zoom_and_one_then_moves_the_picture(short, tmp_path):
    with Page(short.as_uri(), tmp_path / "profile", (390, 844)) as page:
        page("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=True)
        page("Emulation.setTouchEmulationEnabled", enabled=True)
        page.run("page.seek(1)")
        x, y = middle_of(page, "left-world")

        def touch(kind, *apart):
            points = [{"x": x + each, "y": y, "id": k} for k, each in enumerate(apart)]
            page("Input.dispatchTouchEvent", type=kind, touchPoints=points)

        touch("touchStart", -20, 20)
        for apart in (30, 50, 70):
            touch("touchMove", -apart, apart)
        touch("touchEnd")
        page.until("page.view.zoom > 2")
        before = page.run("page.view.column")
        touch("touchStart", 0)
        for moved in (20, 40, 60):
            touch("touchMove", moved)
        touch("touchEnd")
        page.until(f"page.view.column < {before}")
        assert page.run("page.state.agent") is None
        assert page.errors == []


@needs_browser
def test_the_picture_stays_on_the_followed_agent(tmp_path):
    env = ParticleGrid("group", "discrete", agents=40, height=60, width=60, vision=3)
    replay, *_ = record(env, 20)
    replay.write(tmp_path / "a.html")
    with Page((tmp_path / "a.html").as_uri(), tmp_path / "profile") as page:
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
    with Page((tmp_path / "a.html").as_uri(), tmp_path / "profile") as page:
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
    with Page((tmp_path / "a.html").as_uri(), tmp_path / "profile") as page:
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
    with Page((tmp_path / "a.html").as_uri(), tmp_path / "profile") as page:
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
