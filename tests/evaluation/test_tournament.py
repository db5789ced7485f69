"""Tournaments and ratings."""

import csv
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from particle_grid import rank
from particle_grid.evaluation import match, ratings
from particle_grid.evaluation.tournament import COLUMNS, MatchFolder
from particle_grid.learn import checkpoint
from particle_grid.learn.policy import make_policy
from tests.cases import small
from tests.test_faults import no_file_beyond

RANK = [sys.executable, "-m", "particle_grid.rank"]
HEADER = ",".join(COLUMNS).encode() + b"\r\n"
TINY = ["world.worlds=1", "world.agents=24", "world.height=24", "world.width=24", "world.lifespan=20", "steps=4"]


@pytest.fixture
def enter(tmp_path):
    """Save the checkpoint of an untrained policy in a run's folder."""

    def save(name, action, seed=0, vision=5, task="predator_prey"):
        env = small("predator_prey", action, vision=vision)
        torch.manual_seed(seed)
        policy = make_policy("conv_lstm", vision, env.single_action_space, hidden=16)
        config = {"task": {"name": task}, "action": {"name": action}, "world": {"vision": vision}}
        config |= {"policy": {"name": "conv_lstm", "hidden": 16}, "seed": seed, "name": name}
        (tmp_path / name).mkdir(exist_ok=True)
        checkpoint.save(
            tmp_path / name / "checkpoint.pt", {"config": config, "steps": 0, "policy": policy.state_dict()}
        )

    return save


@given(arrays(float, (7, 4), elements=st.integers(0, 5).map(float)), st.permutations(range(4)))
def test_ratings_depend_only_on_score_ranks_and_not_on_the_order_of_players(contests, order):
    expected = np.array(ratings.rate(contests))
    assert np.allclose(ratings.rate(np.exp(contests)), expected)
    assert np.allclose(ratings.rate(contests[:, order]), expected[list(order)])


def test_a_difference_in_rating_is_worth_as_many_wins_as_its_explanation_says():
    """Ratings of known strengths stay where they are on average if the better player wins three of four contests."""
    model = ratings.load_libraries()[0].PlackettLuce()
    table = ratings.Ranking(["a", "b"], ["predator", "prey"], np.zeros((2, 2)), ([], []))
    gap = float(table.meaning().split(" higher")[0].split()[-1])
    players = [[model.rating(mu=25 + gap, sigma=1e-2)], [model.rating(mu=25, sigma=1e-2)]]
    won, lost = (model.rate(players, ranks=ranks)[0][0].mu - 25 - gap for ranks in ([0, 1], [1, 0]))
    assert won > 0 > lost
    assert won / (won - lost) == pytest.approx(0.25, abs=0.005)


def test_higher_scores_give_higher_ratings_and_more_contests_less_uncertainty():
    generator = np.random.default_rng(0)
    contests = generator.normal([0.0, 1.0, 2.0, 2.0], 0.3, (60, 4))
    means, deviations = np.array(ratings.rate(contests)).T
    assert means[0] < means[1] < min(means[2:])
    assert abs(means[2] - means[3]) < deviations[2] + deviations[3]
    assert (deviations < np.array(ratings.rate(contests[:10]))[:, 1]).all()


def test_each_team_is_rated_by_its_own_scores():
    scored = np.zeros((2, 3, 3, 2))  # [seeds, firsts, seconds, teams]
    scored[..., 0] = np.arange(3)[:, None]
    scored[..., 1] = -np.arange(3)
    first, second = ratings.rate_teams(scored)
    assert [mean for mean, _ in first] == sorted(mean for mean, _ in first)
    assert [mean for mean, _ in second] == sorted((mean for mean, _ in second), reverse=True)


def test_a_tournament_writes_tables_and_a_picture_and_repeats_no_match(invoke, enter, monkeypatch):
    enter("one", "discrete")
    enter("two", "continuous", seed=1)
    arguments = [*TINY, "checkpoints=[one/checkpoint.pt,tw*/checkpoint.pt]", "out=out", "seeds=1"]
    code, out, err = invoke(rank.main, *arguments)
    assert (code, err) == (0, "")
    assert "predator_prey, continuous: 4 x 4 x 1 matches of 4 steps and 24 agents" in out
    assert "as predator" in out
    with Path("out/matches.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["first"], row["second"]) for row in rows} == {
        (a, b) for a in ("script", "random", "one", "two") for b in ("script", "random", "one", "two")
    }
    with Path("out/matrix.csv").open() as file:
        matrix = list(csv.reader(file))
    assert [row[0] for row in matrix[1:]] == matrix[0][1:] == ["script", "random", "one", "two"]
    assert float(matrix[1][3]) == pytest.approx(float(rows[2]["first_score"]))
    with Path("out/ratings.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2 * 4
    with Image.open("out/ranking.png") as image:
        assert min(image.size) > 200
    assert "16 matches, about 1 min" in out

    played, play = [], match.match
    monkeypatch.setattr(match, "match", lambda *args: (played.append(args[2]), play(*args))[1])
    assert invoke(rank.main, *arguments)[0] == 0
    assert played == []
    lines = Path("out/matches.csv").read_text().splitlines(keepends=True)
    Path("out/matches.csv").write_text("".join(lines[:-1]) + lines[-1][:20])  # as an interrupted write leaves it
    assert invoke(rank.main, *arguments)[0] == 0
    assert played == [1000]
    assert invoke(rank.main, *arguments)[0] == 0
    assert played == [1000]
    enter("one", "discrete", seed=2)  # other weights under the same name
    assert invoke(rank.main, *arguments, "seeds=2")[0] == 0
    assert played == [1000] * (1 + 7) + [1001] * 16


def test_an_incomplete_line_is_removed_without_touching_earlier_lines(tmp_path):
    path, whole = tmp_path / "matches.csv", ",".join(COLUMNS) + "\r\na,b,1,2,1000,0.5,0.25\r\n"
    path.write_bytes(f"{whole}a,b,1,2,1001,0.".encode())
    with no_file_beyond(len(whole) // 2):  # rewriting the file would fail
        [(played, scored)] = MatchFolder(tmp_path).read_matches().items()
    assert (played, scored.tolist()) == (("1", "2", 1000), [0.5, 0.25])
    assert path.read_bytes() == whole.encode()


def test_players_are_named_after_their_folders_even_if_a_name_looks_like_markup(invoke, enter):
    enter("[b]one", "discrete")
    code, out, _ = invoke(rank.main, *TINY, "checkpoints=[*/checkpoint.pt]", "out='[b]out'")
    assert code == 0
    assert out.count("[b]one") == 1  # in the table
    assert "Saved: [b]out/matches.csv\n" in out


def test_a_policy_that_was_trained_on_another_task_is_announced(invoke, enter):
    enter("one", "discrete", task="group")
    enter("two", "discrete", seed=1)
    code, out, _ = invoke(rank.main, *TINY, "checkpoints=[*/checkpoint.pt]", "seeds=1", "out=out")
    assert code == 0
    assert [line for line in out.splitlines() if "was trained" in line] == [
        "one was trained on group, not on predator_prey."
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["task=group"], "task=group has only one team"),
        (["checkpoints=[none*/checkpoint.pt]"], "checkpoints=none*/checkpoint.pt matches no file"),
        (["checkpoints=[far/checkpoint.pt]"], "far sees 3 cells in each direction, but here world.vision=5"),
        (["seeds=0"], "seeds=0 is invalid: give a whole number, 1 or more"),
        (["steps=x"], "steps=x is invalid"),
        (["greedy=2"], "greedy=2 is invalid"),
        (["world.agent=3"], "There is no key 'agent' in world. Did you mean agents?"),
        (["device=tpu"], "device=tpu is not known"),
        (["checkpoints="], "checkpoints= is invalid: give a list of paths"),
    ],
)
def test_an_impossible_ranking_is_refused_in_a_sentence(invoke, enter, arguments, message):
    enter("one", "discrete")
    enter("far", "discrete", vision=3)
    code, _, err = invoke(rank.main, "checkpoints=[one/checkpoint.pt]", *TINY, *arguments)
    assert code == 1
    assert message in err
    assert not Path("outputs").exists()


def test_matches_of_different_settings_are_not_mixed(invoke, enter):
    enter("one", "discrete")
    assert invoke(rank.main, "checkpoints=[one/checkpoint.pt]", *TINY, "out=out")[0] == 0
    code, _, err = invoke(rank.main, "checkpoints=[one/checkpoint.pt]", *TINY, "out=out", "world.agents=30")
    assert code == 1
    assert "out=out holds matches with agents=24, and these have 30: choose another folder" in err


def test_each_setting_has_its_own_folder_by_default(invoke, enter):
    enter("one", "discrete")
    enter("two", "continuous")
    settings = [[], ["checkpoints=[two/checkpoint.pt]"], ["world.agents=30"], ["steps=6"], ["greedy=true"], ["seeds=2"]]
    folders = []
    for more in settings:
        code, out, err = invoke(rank.main, "checkpoints=[one/checkpoint.pt]", *TINY, *more)
        assert (code, err) == (0, "")
        folders.append(out.split("Saved: ")[1].split("/matches.csv")[0])
    assert len(set(folders)) == len(settings) - 1  # more seeds are more matches of the same kind
    assert folders[0] == folders[-1]
    assert all(Path(folder).parent == Path("outputs") for folder in folders)


def test_the_folder_of_an_earlier_version_is_found_and_continued(invoke, enter):
    enter("one", "discrete")
    assert invoke(rank.main, "checkpoints=[one/checkpoint.pt]", *TINY)[0] == 0
    [settings] = Path("outputs").glob("rank_*/settings.json")
    settings.write_text(settings.read_text("utf-8").replace("max_episode_steps", "horizon"))  # its old name
    matches = settings.with_name("matches.csv")
    before = matches.read_bytes()
    code, out, err = invoke(rank.main, "checkpoints=[one/checkpoint.pt]", *TINY)
    assert (code, err) == (0, "")
    assert f"Saved: {settings.parent}/" in out
    assert matches.read_bytes() == before


def test_the_default_folder_has_the_same_name_as_in_earlier_versions():
    assert str(MatchFolder.default({"task": "my:Task", "action": "discrete", "max_episode_steps": 0}).path) == str(
        MatchFolder.default({"task": "my:Task", "action": "discrete", "horizon": 0}).path
    )


@pytest.mark.release
def test_the_examples_of_the_help_text_run_in_their_order(enter, tmp_path):
    for name in ("outputs/A", "outputs/B", "outputs/1_predator_prey_2"):
        (tmp_path / name).mkdir(parents=True)
        enter(name, "discrete")
    said = subprocess.run([*RANK, "--help"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    examples = [line.strip() for line in said.splitlines() if line.strip().startswith("python -m particle_grid.rank ")]
    assert len(examples) >= 3
    for example in examples:
        words = shlex.split(example.replace("python", sys.executable, 1))
        process = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=1800)
        assert process.returncode == 0, example + process.stderr


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("matches.csv", b"a,b\r\n", "its first line is not first,second,first_id,second_id,seed"),
        ("matches.csv", HEADER + b"a,b,1\r\n", "line 2 is not part of the table that is expected here: it has 3 cells"),
        ("matches.csv", HEADER + b"a,b,1,2,1000,nan,0\r\n", "line 2, is not a match with a seed and two finite scores"),
        ("matches.csv", HEADER + b"a,b,1,2,x,0,0\r\n", "line 2, is not a match with a seed and two finite scores"),
        ("matches.csv", HEADER + b"\xff,b,1,2,1,0,0\r\n", "is not part of the table that is expected"),
        ("matches.csv", HEADER + b"a" * 200_000 + b",b,1,2,1,0,0\r\n", "is not part of the table that is expected"),
        ("matches.csv", HEADER + b"a\0,b,1,2\r\n", "is not part of the table that is expected"),
        ("settings.json", b"{", "settings.json cannot be read"),
        ("settings.json", b"[1]", "settings.json does not hold the settings of matches"),
        ("settings.json", b"[" * 100_000, "settings.json cannot be read"),
        ("settings.json", b"{}", "out=out holds matches with task=None, and these have predator_prey"),
    ],
)
def test_damaged_files_of_a_tournament_are_refused_in_a_sentence(invoke, enter, file, content, reason):
    enter("one", "discrete")
    arguments = ["checkpoints=[one/checkpoint.pt]", *TINY, "out=out"]
    assert invoke(rank.main, *arguments)[0] == 0
    Path("out", file).write_bytes(content)
    code, _, err = invoke(rank.main, *arguments)
    assert (code, err.count("\n")) == (1, 1)
    assert reason in err
    assert Path("out", file).read_bytes() == content


@pytest.mark.parametrize(("module", "extra"), [("openskill.models", "rank"), ("matplotlib.figure", "plot")])
def test_a_missing_library_is_named_with_the_extra_that_provides_it(invoke, monkeypatch, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    code, _, err = invoke(rank.main, "checkpoints=[pretrained]")
    assert code == 1
    assert f'pip install "particle-grid[{extra}]"' in err


def test_two_tournaments_never_use_a_folder_at_the_same_time(invoke, enter):
    enter("one", "discrete")
    Path("out").mkdir()
    arguments = ["checkpoints=[one/checkpoint.pt]", *TINY, "seeds=1", "out=out"]
    with FileLock("out/.lock"):
        code, _, err = invoke(rank.main, *arguments)
    assert code == 1
    assert "out is in use by another process that plays there: wait for it, or choose another out=FOLDER." in err
    assert invoke(rank.main, *arguments)[0] == 0
