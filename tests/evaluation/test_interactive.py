"""The interactive game and its command."""

import itertools

import numpy as np
import pytest

from particle_grid import play
from particle_grid.env import ACTIONS, ParticleGrid
from particle_grid.evaluation.interactive import HEADINGS, KEYS, NOTICE, RATES, Game, GameSettings
from particle_grid.evaluation.players import policy_player, scripted_player
from particle_grid.learn.policy import make_policy
from particle_grid.settings.compose import config_folder
from particle_grid.sim.observation import decode
from particle_grid.view.frame import PALETTE
from particle_grid.view.panel import WIDTH, draw_window, window_at
from particle_grid.view.window import Event, Window
from tests.cases import CASES, small

pygame = pytest.importorskip("pygame")
every_case = pytest.mark.parametrize(("task", "action"), CASES)
both_forms = pytest.mark.parametrize("action", ACTIONS)


def started(env, others=scripted_player, **settings):
    game = Game(env, others, "the script", GameSettings(**settings))
    game.start()
    return game


def alone(action, **changes):
    """Return a game of one agent in an empty field."""
    return started(ParticleGrid("center", action, agents=1, height=60, width=60, lifespan=0, **changes))


def press(game, *keys, kind="press", **facts):
    for key in keys:
        game.handle(Event(kind, key, **facts))


def same(one, two):
    """Return whether two environments have the same state, byte for byte."""
    return all((x == y).all() for x, y in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


@every_case
def test_the_steered_agent_obeys_the_keys_and_all_others_the_script(task, action):
    agent = 70
    game = started(small(task, action), agent=agent)
    twin = small(task, action)
    twin.reset(0)
    generator = np.zeros(1, np.uint64)
    for k, keys in enumerate([["up"], ["s"], ["a", "w"], ["right", "down"], [], ["left", "d"], ["up", "w"]] * 3):
        press(game, *keys)
        actions = twin.scripted_actions(generator)
        actions[agent] = (
            np.clip(np.sum([HEADINGS[key] for key in keys] or [(0, 0)], axis=0), -1, 1) + game.env.rules.centre
        )
        twin.step(actions)
        game.step()
        assert same(game.env, twin), k
        press(game, *keys, kind="release")


@every_case
def test_a_released_agent_follows_the_script_until_it_is_taken_back(task, action):
    game, twin = started(small(task, action)), small(task, action)
    twin.reset(0)
    generator = np.zeros(1, np.uint64)
    press(game, "p", "up")
    for _ in range(10):
        twin.step(twin.scripted_actions(generator))
        game.step()
    assert same(game.env, twin)
    press(game, "p")
    game.step()
    assert (game.action == (-1, 0)).all() or game.facts().alert


def test_the_others_follow_a_policy():
    env, twin = small("forage", "discrete"), small("forage", "discrete")
    policy = make_policy("conv", env.vision, env.single_action_space, hidden=16)
    game, player = started(env, policy_player(policy), seed=3), policy_player(policy)(twin, 3)
    twin.reset(3)
    starts = np.ones(twin.num_agents, bool)
    press(game, "left")
    for _ in range(20):
        actions = player(twin.observations, starts)
        actions[0] = 1, 0
        starts = twin.step(actions)[3].copy()
        game.step()
    assert same(env, twin)


@both_forms
@pytest.mark.parametrize("key", HEADINGS)
def test_a_key_moves_the_agent_a_full_step_and_one_released_early_counts_once(action, key):
    game = alone(action, speed=1.0)
    press(game, key)
    press(game, key, kind="release")
    game.step()
    assert tuple(game.env.state.displacement[:, 0]) == HEADINGS[key]
    game.step()
    assert not game.env.state.displacement.any()


@both_forms
@pytest.mark.parametrize("dynamics", ["kinematic", "inertial"])
def test_while_the_left_button_is_held_the_agent_heads_for_the_mouse(action, dynamics):
    game = alone(action, dynamics=dynamics)
    start = game.env.state.position[:, 0] - game.env.vision
    for offset in ((17, 9), (0, -8), (-12, 0.2)):
        target = np.clip(start + offset, 1, 59)
        pixel = tuple(int(x) for x in target * game.camera.zoom - game.camera._corner)
        press(game, "mouse left", place=pixel)
        game.step()
        if dynamics == "kinematic":
            assert np.abs(game.action).max() == 1  # far away: at full speed
        for _ in range(80):
            game.step()
        here = game.env.state.position[:, 0] - game.env.vision
        assert np.abs(here - game.camera.place_of(pixel)).max() <= (0.05 if action == "continuous" else 1)
        press(game, "mouse left", kind="release")
    press(game, "mouse left", place=(5, game.camera.size + 5))  # on the panel
    assert (game.wanted() == game.env.rules.centre).all()


def test_a_pause_stops_time_but_allows_single_steps():
    game = started(small("group", "discrete"), rate=10)
    ticks = game.env.state.tick
    for seconds, steps in ((0.25, 2), (0.05, 3), (100, 4)):  # long delays are not caught up
        for _ in range(10 if seconds < 1 else 1):
            game.advance(seconds / 10 if seconds < 1 else seconds)
        assert (ticks == steps).all()
    press(game, "n", ".")  # only during a pause
    assert (ticks == 4).all()
    press(game, "space")
    game.advance(1)
    assert (ticks == 4).all()
    press(game, "n")
    assert (ticks == 5).all()
    press(game, ".")
    assert (ticks == 6).all()
    press(game, "space")
    game.advance(0.1)
    assert (ticks == 7).all()


def test_the_keys_for_faster_and_slower_step_through_the_rates():
    game = started(small("group", "discrete"), rate=10)
    rates = []
    for key in ["+"] * 7 + ["-"] * 11:
        press(game, key)
        rates.append(game.rate)
    assert rates == [12, 20, 30, 60, 120, 120, 120, 60, 30, 20, 12, 8, 5, 3, 2, 1, 1, 1]
    assert set(rates) == set(RATES)


@every_case
def test_the_panel_shows_the_observation_of_the_agent(task, action):
    game = started(small(task, action))
    for agent in (0, 1, 2):
        game.step()
        picture, facts = game.picture(), game.facts()
        assert picture.shape == (640, 640 + WIDTH, 3)
        assert (picture[:, :640] == game.camera.look(game.env.state)).all()
        window = decode(game.env.observations[agent], game.env.world).window
        side = len(window)
        top, left = window_at(window)
        shown = draw_window(window)
        assert (picture[top : top + len(shown), 640 + left :][:, : len(shown)] == shown).all()
        zoom = len(shown) // side
        assert (shown[zoom // 2 :: zoom, zoom // 2 :: zoom] == PALETTE[window]).all()
        assert facts.colour == window[side // 2, side // 2] == game.env.state.colour[agent]
        assert facts.rewards[-1] == game.env.rewards[agent]
        press(game, "tab")
        assert game.agent == agent + 1


def test_tab_selects_each_agent_in_turn_and_with_shift_one_of_another_colour():
    game = started(small("predator_prey", "discrete"))
    taken = []
    for _ in range(game.env.num_agents):
        taken.append(game.agent)
        press(game, "tab")
    assert taken == list(range(120))
    assert game.agent == 0
    for first in (30, 60, 90, 0):  # hunters, then prey, in each of two worlds
        press(game, "tab", shift=True)
        assert (game.agent, game.camera.world) == (first, first // 60)
    press(one := started(small("center", "discrete")), "tab", shift=True)
    assert one.agent == 0  # there is no other colour


def test_a_respawn_is_announced_and_keys_have_no_effect_in_its_step():
    game = started(small("center", "continuous"), agent=5)
    press(game, "up")
    while not game.env.truncations[5]:
        assert not game.facts().alert
        game.step()
    assert not game.env.state.displacement[:, 5].any()
    assert "return" in dict(game.facts().lines)
    game.env.state.expiry[5] = 1 << 40  # its next life outlasts the test
    for _ in range(NOTICE):
        assert game.facts().alert
        game.step()
    assert not game.facts().alert


def test_restarting_continues_the_seed_and_equal_seeds_start_equally():
    game, twin = (started(small("forage", "discrete"), seed=4) for _ in range(2))
    assert same(game.env, twin.env)
    before = game.env.observations.copy()
    for _ in range(5):
        game.step()
    press(game, "r")
    assert (game.env.state.tick == 0).all()
    assert not game.rewards
    assert (game.env.observations != before).any()


def test_keys_released_in_another_window_count_as_released():
    game = alone("discrete")
    press(game, "up")
    game.handle(Event("leave"))
    game.step()
    assert tuple(game.env.state.displacement[:, 0]) == (-1, 0)  # the key press still counts once
    game.step()
    assert not game.env.state.displacement.any()


def test_the_wheel_zooms_a_drag_pans_and_f_follows():
    game = started(small("group", "discrete"))
    shape, zoom = game.picture().shape, game.camera.zoom
    game.handle(Event("move", place=(100, 700)))
    game.handle(Event("wheel", turn=2))  # over the panel
    assert game.camera.zoom == zoom
    game.handle(Event("move", place=(320, 300)))
    place = game.camera.place_of((320, 300))
    game.camera.following = False
    game.handle(Event("wheel", turn=2))
    assert game.camera.zoom > zoom
    assert game.camera.place_of((320, 300)) == pytest.approx(place, abs=1 / zoom)
    corner = game.camera.place_of((0, 0))
    press(game, "mouse right", place=(100, 200))
    game.handle(Event("move", place=(90, 180)))
    press(game, "mouse right", kind="release")
    game.handle(Event("move", place=(300, 300)))
    moved = np.subtract(game.camera.place_of((0, 0)), corner) * game.camera.zoom
    assert moved == pytest.approx([10, 20])
    assert not game.camera.following
    press(game, "f")
    assert game.camera.following
    assert game.picture().shape == shape


def test_a_picture_is_redrawn_only_if_something_has_changed():
    game = started(small("group", "discrete"))
    first = game.picture()
    assert game.picture() is first
    press(game, "h")
    assert (game.picture() != first).any()
    press(game, "h")
    assert (game.picture() == first).all()
    game.step()
    assert (game.picture() != first).any()


@pytest.mark.parametrize("event", [Event("close"), Event("press", "escape"), Event("press", "q")])
def test_the_game_ends_when_the_user_quits(event):
    game = alone("discrete")
    game.handle(event)
    assert not game.open


def test_help_in_the_window_and_on_the_command_line_agree():
    text = (config_folder() / "play.yaml").read_text("utf-8")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    for key, what in KEYS:
        assert f"{key} {what}" in lines


@pytest.fixture
def screen(monkeypatch):
    """A virtual screen with a user, who posts a list of pygame events for each picture and then closes the window."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    shown, show = [], Window.show

    def use(*events):
        script = itertools.chain([[], *events], itertools.repeat([pygame.event.Event(pygame.QUIT)]))

        def watched(window, image):
            shown.append(image.copy())
            events = next(script)  # none before the first picture, since there is no window yet
            for event in events:
                pygame.event.post(event)
            return show(window, image)

        monkeypatch.setattr(Window, "show", watched)
        return shown

    return use


@both_forms
@pytest.mark.parametrize("checkpoint", [None, "pretrained"])
def test_the_command_opens_a_window_and_ends_when_it_is_closed(invoke, screen, action, checkpoint):
    key = pygame.event.Event(pygame.KEYDOWN, key=pygame.K_LEFT)
    pause, step = (pygame.event.Event(pygame.KEYDOWN, key=k) for k in (pygame.K_SPACE, pygame.K_n))
    shown = screen([pause, key, step], [step], [])
    extra = [f"checkpoint={checkpoint}"] if checkpoint else []
    code, out, err = invoke(play.main, "task=predator_prey", f"action={action}", "fps=240", *extra)
    assert (code, err) == (0, "")
    assert "predator_prey, 256 agents: H in the window shows the keys" in out
    assert {image.shape for image in shown} == {(640, 640 + WIDTH, 3)}
    assert (shown[2] != shown[1]).any()
    assert not pygame.display.get_init()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["agent=256"], "agent=256 is out of range: agents are numbered 0 to 255"),
        (["agent=-1"], "agent=-1 is out of range"),
        (["agent=first"], "agent=first is invalid: give a whole number, such as 0"),
        (["seed=-1"], "seed=-1 is not a seed"),
        (["seed=99999999999999999999"], "seed=99999999999999999999 is invalid: give at most"),
        (["rate=nan"], "rate=nan is invalid: give a finite number"),
        (["checkpoint=5"], "checkpoint=5 is not a path: give one, or leave it out"),
        (["fps=0"], "fps=0.0 is out of range: give 1 to 240 pictures per second"),
        (["rate=0"], "rate=0.0 is out of range"),
        (["pixels=100"], "pixels=100 is out of range: give 624 to 4096"),
        (["zoom=1"], "zoom=1.0 is out of range: 5 shows all of the field"),
        (["trails=-2"], "trails=-2"),
        (["agnt=1"], "There is no key 'agnt'. Did you mean agent?"),
        (["world.agnts=1"], "There is no key 'agnts' in world. Did you mean agents?"),
        (["task=grup"], "There is no task 'grup'. Did you mean group?"),
        (["checkpoint=none.pt"], "There is no checkpoint none.pt"),
    ],
)
def test_invalid_arguments_give_one_sentence_and_no_window(invoke, screen, arguments, message):
    shown = screen()
    code, _, err = invoke(play.main, *arguments)
    assert code == 1
    assert message in err
    assert err.count("\n") == 1
    assert not shown


def test_a_machine_without_a_screen_gets_one_sentence(invoke, monkeypatch):
    for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    code, out, err = invoke(play.main)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("error: No window can be opened here (there is no screen): record a video instead")
