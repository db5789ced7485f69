"""The commands train and eval, as users run them, in worlds small enough to take seconds."""

import itertools
import json
from pathlib import Path

import numba
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from particle_grid import eval as evaluation
from particle_grid import train
from particle_grid.experiments import training
from particle_grid.learn import checkpoint
from particle_grid.learn.config import TrainerConfig
from particle_grid.learn.heads import HEADS
from particle_grid.learn.policy import POLICIES, make_policy
from particle_grid.learn.trainer import Trainer
from tests.cases import CASES, small
from tests.support.test_atomic import no_file_beyond

ROOT = Path(__file__).parents[1]
# Without Numba's compiler these equal "off".
FAST = [] if numba.config.DISABLE_JIT else list(itertools.product(POLICIES, ("fp32", "bf16")))
TINY = ["world.agents=32", "world.height=32", "world.width=40", "world.lifespan=20", "world.worlds=1"]
TINY += ["trainer.rollout_length=8", "trainer.minibatch=64", "policy.hidden=16", "trainer.threads=1", "evaluations=2"]
BATCH = 32 * 8
FEW = f"trainer.total_steps={2 * BATCH}"  # two iterations
WRONG_COUNTS = ("-1", "often", "1.5", "null", "true", "[1]")


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("task", "action"), CASES)
def test_any_policy_learns_from_any_task_and_action_form(task, action, policy):
    env = small(task, action)
    torch.manual_seed(0)
    network = make_policy(policy, env.vision, env.single_action_space, hidden=16)
    before = [parameter.clone() for parameter in network.parameters()]
    result = Trainer(env, network, TrainerConfig(total_steps=2 * 960, rollout_length=8, minibatch=480)).run()
    assert result.steps == 2 * 960
    changed = [not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True)]
    assert all(changed)
    assert "policy/entropy" in result.scalars


@pytest.mark.parametrize(("action", "head"), [("discrete", "auto"), *(("continuous", head) for head in HEADS[1:])])
@pytest.mark.parametrize(("policy", "fast"), [*((policy, "off") for policy in POLICIES), *FAST])
def test_without_learning_every_ratio_is_one_in_the_real_environment(policy, fast, action, head):
    env = small("group", action)
    torch.manual_seed(0)
    network = make_policy(policy, env.vision, env.single_action_space, hidden=16, head=head)
    config = TrainerConfig(
        total_steps=10_000, rollout_length=16, minibatch=480, learning_rate=0.0, fast=fast, device="cpu"
    )
    trainer = Trainer(env, network, config)
    for _ in range(3):  # each rollout continues from the memory of the previous one
        trainer.rollout()
        r = trainer.buffer
        assert 0.02 < r.truncations.float().mean() < 0.2  # lifespan is 12
        with torch.no_grad():
            out, values, _ = trainer.network(r.obs, r.starts[:-1], r.state)
            ratio = (network.head.log_prob_and_entropy(out, r.actions)[0] - r.logp).exp()
        assert (ratio - 1).abs().max() < 1e-5
        assert torch.allclose(values, r.values[:-1], atol=1e-5)
        statistics = trainer.update()
        assert statistics["policy/clip_fraction"] == 0
        assert abs(statistics["policy/kl"]) < 1e-6


def test_a_run_writes_config_events_checkpoint_results_and_a_gif(call):
    code, out, err = call(train.main, *TINY, "task=forage", f"trainer.total_steps={3 * BATCH}", "hydra.run.dir=run")
    assert (code, err) == (0, "")
    assert "policy, sampled" in out
    events = EventAccumulator("run").Reload()
    tags = set(events.Tags()["scalars"])
    assert {"loss/policy", "policy/entropy", "perf/steps_per_second", "eval/sampled", "eval/greedy"} <= tags
    assert [event.step for event in events.Scalars("loss/policy")] == [BATCH, 2 * BATCH, 3 * BATCH]
    results = json.loads(Path("run/results.json").read_text())
    assert set(results) == {"version", "random", "scripted", "sampled", "greedy"}
    assert results["scripted"]["normalised_scores"] == pytest.approx([1, 1], abs=1)
    assert sum(results["random"]["normalised_scores"]) == pytest.approx(0, abs=1e-9)
    with Image.open("run/policy.gif") as gif:
        assert gif.n_frames > 70
    saved = checkpoint.load("run/checkpoint.pt")
    assert saved["config"]["task"]["name"] == "forage"
    assert saved["steps"] == 3 * BATCH
    assert Path("run/.hydra/config.yaml").exists()


def test_names_and_paths_that_look_like_markup_are_printed_literally(call):
    name, folder = "name='[x] [b]'", "hydra.run.dir='[test]/[/x]'"
    code, out, err = call(train.main, *TINY, f"trainer.total_steps={BATCH}", "clips=0", name, folder)
    assert (code, err) == (0, "")
    assert "[x] [b]: 32 agents" in out
    assert f"Saved: {Path('[test]/[/x]').resolve()}/checkpoint.pt\n" in out
    code, out, err = call(evaluation.main, "checkpoint=pretrained", "video='[test]/x.gif'", "seeds=1", "world.agents=9")
    assert (code, err) == (0, "")
    assert "Saved: [test]/x.gif" in out


@pytest.mark.slow
def test_a_resumed_run_has_the_weights_of_an_uninterrupted_one(call):
    arguments = [*TINY, "action=continuous", "trainer.anneal=false"]
    assert call(train.main, *arguments, f"trainer.total_steps={4 * BATCH}", "hydra.run.dir=whole")[0] == 0
    assert call(train.main, *arguments, f"trainer.total_steps={2 * BATCH}", "hydra.run.dir=half")[0] == 0
    more = ["resume=half/checkpoint.pt", f"trainer.total_steps={4 * BATCH}", "hydra.run.dir=rest"]
    assert call(train.main, *more)[0] == 0
    whole, rest = checkpoint.load("whole/checkpoint.pt"), checkpoint.load("rest/checkpoint.pt")
    assert whole["steps"] == rest["steps"] == 4 * BATCH
    assert all(torch.equal(value, rest["policy"][name]) for name, value in whole["policy"].items())
    assert all(torch.equal(value, rest["envs"][0][name]) for name, value in whole["envs"][0].items())
    assert call(train.main, "resume=half/checkpoint.pt", f"trainer.total_steps={3 * BATCH}")[0] == 0
    [folder] = Path("outputs").iterdir()  # named after the resumed run
    assert folder.name.endswith("_half")
    assert f"Trained for {4 * BATCH} steps, more than" not in call(train.main, "resume=whole/checkpoint.pt")[1]
    code, out, _ = call(train.main, "resume=whole/checkpoint.pt", f"trainer.total_steps={2 * BATCH}")
    assert code == 0
    assert (
        f"Trained for {4 * BATCH} steps, more than trainer.total_steps={2 * BATCH}: the policy is only evaluated" in out
    )
    code, _, err = call(train.main, "resume=half/checkpoint.pt", "world.agents=64")
    assert code == 1
    assert "world.agents=64 cannot be changed in a resumed run" in err
    code, _, err = call(train.main, "resume=half/checkpoint.pt", "trainer.seed=1")
    assert code == 1
    assert "trainer.seed=1 cannot be changed in a resumed run" in err


@pytest.mark.slow  # compiles for a vision of its own
def test_a_run_uses_its_own_number_of_threads_whatever_ran_before_in_the_process(call):
    small = [argument for argument in TINY if not argument.startswith("trainer.threads")]
    # There are no kernels for a vision of 3, whose windows need padding, so torch uses its own threads.
    for vision, threads, own in ((5, 1, 1), (3, 0, training.TORCH_THREADS), (3, 1, 1)):
        more = [f"world.vision={vision}", f"trainer.threads={threads}", f"trainer.total_steps={BATCH}"]
        assert call(train.main, *small, *more)[0] == 0
        assert torch.get_num_threads() == own
        assert numba.get_num_threads() == (threads or numba.config.NUMBA_NUM_THREADS)


def test_eval_prints_scores_for_the_same_and_another_task(call):
    assert call(train.main, *TINY, f"trainer.total_steps={BATCH}", "hydra.run.dir=run")[0] == 0
    code, out, err = call(evaluation.main, "checkpoint=run/checkpoint.pt", "seeds=2", "steps=6")
    assert (code, err) == (0, "")
    assert "group, discrete: 2 seeds x 6 steps x 32 agents" in out
    assert "policy, sampled" in out
    assert "policy, greedy" in out
    other = [
        "task=predator_prey",
        "video=out.gif",
        "world.worlds=1",
        "world.agents=20",
        "world.height=32",
        "world.width=32",
    ]
    code, out, err = call(evaluation.main, "checkpoint=run/checkpoint.pt", "seeds=1", "steps=4", *other)
    assert (code, err) == (0, "")
    assert "predator_prey, discrete: 1 seed x 4 steps x 20 agents" in out
    with Image.open("out.gif") as gif:
        assert gif.n_frames > 100


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("video=none/x.gif", "there is no folder none"),
        ("video=x.avi", "ends in .gif or .mp4"),
        ("show.agent=99", "agent=99 is out of range: agents are numbered 0 to 31"),
        ("show.region=[0,0,99,9]", "region=(0, 0, 99, 9) does not lie in the"),
        ("show.region=[1,2]", "show.region=[1, 2] is not a region"),
        ("show.steps=0", "show.steps=0 is out of range"),
        ("show.seed=-1", "show.seed=-1 is out of range"),
        ("show.world=5", "world=5 is out of range: worlds are numbered 0 to 0"),
        ("show.pixels=0", "pixels=0 is out of range: give a whole number of at least 1"),
        ("show.zom=2", "There is no key 'zom' in show. Did you mean zoom?"),
        ("device=banana", "device=banana is not known"),
        ("seed=-5", "seed=-5 is invalid: give a whole number, 0 or more"),
        ("seeds=0", "seeds=0 is invalid: give a whole number, 1 or more"),
        ("seeds=1000000", "seeds=1000000 is invalid: give at most 10000"),
        ("seed=99999999999999999999", "seed=99999999999999999999 is invalid: give at most"),
        ("show.fps=nan", "show.fps=nan is invalid: give a finite number"),
        (
            "show.region=[1,a,2,3]",
            "show.region=[1, 'a', 2, 3] is invalid: give a list, each entry of which is a whole num",
        ),
        ("device=null", "device=None is not known"),
        ("video=5", "video=5 is not a path: give one, or leave it out"),
        ("replay=[1]", "replay=[1] is not a path"),
    ],
)
def test_eval_refuses_invalid_options_before_it_plays(call, argument, message):
    assert call(train.main, *TINY, f"trainer.total_steps={BATCH}", "hydra.run.dir=run")[0] == 0
    code, out, err = call(evaluation.main, "checkpoint=run/checkpoint.pt", argument)
    assert (code, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_film_is_kept_if_the_replay_page_of_the_same_run_cannot_be_written(call):
    assert call(train.main, *TINY, f"trainer.total_steps={BATCH}", "hydra.run.dir=run")[0] == 0
    shown = ["seeds=1", "steps=2", "show.steps=3", "video=x.gif", "replay=x.html"]
    with no_file_beyond(10_000):  # the page is larger than the film
        code, _, err = call(evaluation.main, "checkpoint=run/checkpoint.pt", *shown)
    assert code == 1
    assert "x.html could not be written (File too large)" in err
    assert Path("x.gif").stat().st_size
    assert not Path("x.html").exists()


def test_a_checkpoint_of_something_else_is_refused_in_one_sentence(call):
    checkpoint.save("other.pt", {"steps": 3})
    for main, argument in ((evaluation.main, "checkpoint=other.pt"), (train.main, "resume=other.pt")):
        code, _, err = call(main, argument)
        assert code == 1
        assert "other.pt is not a checkpoint of a run: it has no config" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["checkpoint=none.pt"], "There is no checkpoint none.pt"),
        ([], "checkpoint is required"),
        (["checkpoint=none.pt", "video=none/x.gif"], "There is no checkpoint none.pt"),
        (["checkpoint=none.pt", "task=grup"], "There is no task 'grup'. Did you mean group?"),
        (["checkpoint=none.pt", "world.agnts=3"], "There is no key 'agnts' in world. Did you mean agents?"),
    ],
)
def test_invalid_arguments_of_eval_give_one_sentence(call, arguments, message):
    code, out, err = call(evaluation.main, *arguments)
    assert code == 1
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("world.agents=2000", "agents=2000 do not fit: the 32 x 40 field has 1280 free cells"),
        ("world.height=5", "height=5 is smaller than the window"),
        ("trainer.minibatch=10", "multiple of trainer.rollout_length=8"),
        ("policy.hidden=0", "hidden=0 is not a number of units"),
        ("policy.head=foo", "There is no head 'foo'. There are: auto, beta"),
        ("task.colours=7", "colours=7 is out of range"),
        ("resume=none.pt", "There is no checkpoint none.pt"),
        *((f"clips={count}", f"clips={count} is invalid: give a whole number") for count in WRONG_COUNTS),
        *((f"evaluations={count}", f"evaluations={count} is invalid: give a whole number") for count in WRONG_COUNTS),
        ("evaluations=10001", "evaluations=10001 is invalid: give at most 10000"),
        ("trainer.fast=yes", "trainer.fast='yes' is out of range: it must be one of auto, off, fp32, bf16"),
        ("trainer.env_splits=3", "trainer.env_splits=3 cannot share world.worlds=1 out evenly"),
        ("trainer.scripted_opponents=0.5", "trainer.scripted_opponents=0.5 is invalid: task group has only one team"),
        ("trainer.opponent_pool=0.5", "trainer.opponent_pool=0.5 is invalid: task group has only one team"),
        ("trainer.second_team_weight=2", "trainer.second_team_weight=2.0 is invalid: task group has only one team"),
        ("logger=tensorbord", "There is no logger 'tensorbord'. Did you mean tensorboard?"),
    ],
)
def test_invalid_arguments_of_train_give_nothing_but_a_sentence_and_leave_no_folder(call, argument, message):
    code, out, err = call(train.main, *TINY, argument)
    assert (code, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1
    assert not [*Path("outputs").iterdir()]


def test_whole_numbers_may_be_written_as_floats(call):
    arguments = [*TINY, "world.agents=3.2e1", f"trainer.total_steps={float(BATCH)}", "hydra.run.dir=run"]
    assert call(train.main, *arguments)[0] == 0
    assert checkpoint.load("run/checkpoint.pt")["config"]["world"]["agents"] == 32
    assert call(evaluation.main, "checkpoint=run/checkpoint.pt", "steps=2", "world.agents=1.6e1")[0] == 0


@pytest.mark.slow
def test_a_sweep_runs_each_combination_in_its_own_folder(call):
    sweep = ["-m", "task=forage,center", "action=discrete,continuous", "hydra.sweep.dir=sweep"]
    code, _, err = call(train.main, *sweep, *TINY, f"trainer.total_steps={BATCH}")
    assert (code, err) == (0, "")
    configs = [checkpoint.load(path)["config"] for path in sorted(Path("sweep").glob("*/checkpoint.pt"))]
    played = [(config["task"]["name"], config["action"]["name"]) for config in configs]
    assert sorted(played) == [(t, a) for t in ("center", "forage") for a in ("continuous", "discrete")]


def test_a_run_changes_nothing_in_a_folder_of_foreign_files(call):
    Path("theirs/notes").mkdir(parents=True)
    Path("theirs/notes/thesis.txt").write_text("mine")
    arguments = ["resume=missing.pt", "hydra.run.dir=theirs", "hydra.output_subdir=notes"]
    assert call(train.main, *arguments)[0] == 1
    assert Path("theirs/notes/thesis.txt").read_text() == "mine"
    for name in ("events.out.tfevents.1.other", "config.yaml", "overrides.yaml"):
        Path(name).mkdir()
        (Path(name) / name).write_text("mine: 1")
        code, _, err = call(train.main, *TINY, FEW, f"hydra.run.dir={name}")
        assert code == 1
        assert f"holds {name}, which is damaged or not from this program" in err
        assert (Path(name) / name).read_text() == "mine: 1"


def test_a_resumed_run_parses_overrides_as_the_first_run_did(call):
    first = ["trainer.fast=off", "policy.init_action_rms=0.5"]
    assert call(train.main, *TINY, FEW, "hydra.run.dir=run", *first)[0] == 0
    steps = f"trainer.total_steps={4 * BATCH}"
    assert call(train.main, "resume=run/checkpoint.pt", "hydra.run.dir=run", "trainer.fast=off", steps)[0] == 0


def test_links_in_the_folder_of_a_run_are_not_followed(call):
    Path("target").write_text("mine")
    for folder in ("one", "two"):
        Path(folder).mkdir()
    Path("one/.hydra").mkdir()
    for name in ("config.yaml", "hydra.yaml", "overrides.yaml"):
        Path("one/.hydra", name).symlink_to("../../target")
    Path("elsewhere").mkdir()
    Path("two/.hydra").symlink_to("../elsewhere")
    for folder in ("one", "two"):
        assert call(train.main, *TINY, FEW, f"hydra.run.dir={folder}")[0] == 0
    assert Path("target").read_text() == "mine"
    assert not list(Path("elsewhere").iterdir())


def test_a_resumed_finished_run_counts_as_unfinished_until_it_has_new_results(call, monkeypatch):
    assert call(train.main, *TINY, FEW, "hydra.run.dir=run")[0] == 0

    def interrupt(*arguments):
        raise KeyboardInterrupt

    more = ["resume=run/checkpoint.pt", "hydra.run.dir=run", f"trainer.total_steps={8 * BATCH}"]
    with monkeypatch.context() as patched:
        patched.setattr(training.scoring, "evaluate_policy", interrupt)
        assert call(train.main, *more)[0] == 130
    assert not Path("run/results.json").exists()
    assert call(train.main, *more)[0] == 0
    assert Path("run/results.json").exists()
