import io

import pytest
from rich.console import Console

from particle_grid.learn import dashboard
from particle_grid.learn.dashboard import Dashboard, shares, sparkline

SCALARS = {
    "env/score": 0.25,
    "env/normalised_score": 0.5,
    "policy/moved": 0.75,
    "episode/reward": 0.1,
    "policy/entropy": 2.1,
    "policy/log_std": -0.5,
    "policy/kl": 0.01,
    "policy/clip_fraction": 0.125,
    "value/explained_variance": 0.9,
    "perf/simulate": 0.1,
    "perf/infer": 0.3,
    "perf/learn": 0.6,
}


def terminal(file):
    return Console(file=file, force_terminal=True, width=100, color_system=None)


def test_a_terminal_shows_progress_figures_shares_and_history(monkeypatch):
    monkeypatch.setattr(dashboard, "REFRESH", 0.0)
    file = io.StringIO()
    with Dashboard(1_000_000, console=terminal(file)) as board:
        for k in range(3):
            board.log(250_000 * (k + 1), SCALARS | {"env/normalised_score": k / 2})
    text = file.getvalue()
    shown = (
        "0.75M of 1.00M steps; left; score 0.250; normalised 1.000; moved 75%; entropy 2.100; KL 0.0100; clipped 12.5%"
    )
    shown += (
        "; explained 0.90; simulate 10%; infer 30%; learn 60%; log std -0.500; normalised score from 0.00 to 1.00: ▁▅█"
    )
    for words in shown.split("; "):
        assert words in text


def test_the_remaining_time_is_estimated_without_the_first_iteration(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(dashboard, "perf_counter", lambda: now[0])
    board = Dashboard(1_000_000, console=Console(file=io.StringIO()))
    now[0] = 60.0
    board.log(1000, {})
    assert board.progress() == "0.00M of 1.00M steps"
    now[0] = 61.0
    board.log(2000, {})
    assert board.progress() == "0.00M of 1.00M steps, 1.0k/s, 17 min left"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_terminal_is_restored_on_an_error_or_ctrl_c(error):
    file = io.StringIO()

    def fail():
        with Dashboard(100, console=terminal(file)) as board:
            board.log(10, SCALARS)
            raise error

    with pytest.raises(error):
        fail()
    hide = "\x1b[?25l"
    show = "\x1b[?25h"
    assert file.getvalue().count(hide) == file.getvalue().count(show) == 1
    assert file.getvalue().rindex(show) > file.getvalue().rindex(hide)


def test_a_pipe_gets_a_plain_line_at_intervals_and_at_the_end(monkeypatch):
    file = io.StringIO()
    now = [0.0]
    monkeypatch.setattr(dashboard, "perf_counter", lambda: now[0])
    with Dashboard(1_000_000, console=Console(file=file, width=40)) as board:
        for k in range(1, 101):
            now[0] = k * 0.25
            board.log(k * 1000, SCALARS)
    lines = file.getvalue().splitlines()
    assert len(lines) == 3  # after 10 s, after 20 s, and at the end
    assert lines[-1].startswith("0.10M of 1.00M steps, 4.0k/s, 225 s left"[:28])
    assert "normalised 0.500" in lines[-1]
    assert "\x1b" not in file.getvalue()


def test_a_terminal_is_drawn_at_most_four_times_a_second(monkeypatch):
    drawn = []
    now = [0.0]
    monkeypatch.setattr(dashboard, "perf_counter", lambda: now[0])
    monkeypatch.setattr(Dashboard, "show", lambda self: drawn.append(now[0]))
    board = Dashboard(100, console=terminal(io.StringIO()))
    for k in range(1000):
        now[0] = k * 0.01
        board.log(k, SCALARS)
    assert 30 <= len(drawn) <= 40


def test_a_run_without_a_finished_iteration_shows_nothing():
    file = io.StringIO()
    with Dashboard(100, console=Console(file=file)):
        pass
    assert file.getvalue() == ""


def test_a_sparkline_spans_the_range_of_means_of_equal_shares():
    assert sparkline([3.0]) == "▁"
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert shares(range(1000), most=20) == [24.5 + 50 * k for k in range(20)]
    assert shares([1, 2, 3]) == [1, 2, 3]


def test_the_last_iteration_may_overshoot_and_no_zero_is_negative():
    file = io.StringIO()
    with Dashboard(500_000, console=Console(file=file, width=200)) as board:
        board.log(520_000, {"env/score": -0.0001})
    assert file.getvalue() == "0.52M steps, score 0.000\n"
