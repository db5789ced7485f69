"""Craft checkpoints as an attacker would, and let commands read them: python -m tests.runs.hostile GOOD FOLDER FIRST
END.

The signature of checkpoints is implemented again here, so that the attack does not depend on the attacked code.
"""

import contextlib
import hashlib
import io
import json
import logging
import os
import pickle
import random
import resource
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import torch

MARK = b"sha256:"
MEMORY = 1 << 30  # bytes by which the process may grow, whatever it reads
SECONDS = 30  # that one case may take on a busy machine


def signed(content):
    """Return the content with the digest that ends a checkpoint."""
    return content + MARK + hashlib.sha256(content).digest()


def unsigned(path):
    return path.read_bytes()[: -len(MARK) - 32]


def archived(state):
    """Return the bytes that torch saves for a state."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def rewritten(content, members=(), drop=(), compression=zipfile.ZIP_STORED):
    """Return an archive with replaced and dropped members."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(result, "w", compression) as new:
        kept = {name: old.read(name) for name in old.namelist() if name not in drop}
        for name, data in (kept | dict(members)).items():
            new.writestr(name, data)
    return result.getvalue()


class Call:
    """An object whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.what = function, arguments

    def __reduce__(self):
        return self.what


def pickled(value):
    return pickle.dumps({"version": 1, "value": value}, protocol=2)


def raw(instructions):
    """Return a pickled dict of version 1 with one more key and value, which the instructions make."""
    return b"\x80\x02}(X\x07\x00\x00\x00versionK\x01" + instructions + b"u."


TRAPS = {  # instructions that a general unpickler would follow
    "call": pickled(Call(os.mkdir, "trap")),
    "eval": pickled(Call(eval, "__import__('os').mkdir('trap')")),
    "allocate": pickled(Call(bytearray, 1 << 34)),
    "tensor": pickled(Call(torch.zeros, 1 << 34)),
    "device": pickled(torch.device("cuda")),
    "dtype": pickled(torch.float32),
    "array": pickled(np.zeros(3)),
    "ordered": pickled(Call(dict, [("a", 1)])),
    "deep key": raw(b")" + b"\x85" * 200_000 + b"K\x01"),
    "deep list": raw(b"K\x01" + b"]" * 10_000 + b"a" * 9_999),
    "laughs": raw(b"K\x01" + b"]q\x00K\x00a" + b"".join(b"]q%c(h%ch%ce" % (k + 1, k, k) for k in range(40))),
    "within itself": raw(b"K\x01]q\x00h\x00a"),
    "far memo": raw(b"K\x01K\x02r\xff\xff\xff\x7f"),
    "long number": raw(b"K\x01\x8b\xff\xff\xff\x7f\x01"),
    "long text": raw(b"K\x01X\xff\xff\xff\x7fabc"),
    "surrogate": raw(b"K\x01X\x03\x00\x00\x00\xed\xa0\x80"),
    "empty": b"",
    "no stop": b"\x80\x02}",
    "nothing on the stack": b"\x80\x02s.",
    "no mark": b"\x80\x02}u.",
    "unknown": b"\xff",
    "many": b"\x80\x02" + b"N" * (1 << 23) + b".",
}
EVIL = [
    None,
    True,
    -5,
    0,
    1,
    7,
    float("nan"),
    float("inf"),
    -0.5,
    1e300,
    "",
    "x",
    "a\x1b[31mb",
    "${oc.env:HOME}",
    "???",
]
EVIL += ["a:b", "../../x", [], [1], {}, {"a": 1}, {1: {}}, torch.zeros(1), torch.tensor(float("nan")), torch.zeros(0)]
LARGE = [2**31, 2**63 - 1, 2**64, -(2**100)]  # not used in a config, where they may request as much work


def attack(path, seed):
    """Return the file crafted or damaged in one of many ways, and signed."""
    generator, content = random.Random(seed), unsigned(path)
    match seed % 8:
        case 0:  # arbitrary bytes
            damaged = bytearray(content)
            for _ in range(generator.choice([1, 2, 8, 64])):
                damaged[generator.randrange(len(damaged))] = generator.randrange(256)
            return signed(bytes(damaged))
        case 1:  # bytes of the instructions
            damaged = bytearray(zipfile.ZipFile(io.BytesIO(content)).read("archive/data.pkl"))
            for _ in range(generator.choice([1, 1, 2, 8])):
                damaged[generator.randrange(len(damaged))] = generator.randrange(256)
            return signed(rewritten(content, {"archive/data.pkl": bytes(damaged)}))
        case 2:  # members of the archive
            names = zipfile.ZipFile(io.BytesIO(content)).namelist()
            name, trap = generator.choice(["archive/data.pkl", *names]), generator.choice([*TRAPS.values()])
            drop = generator.choice([(), (), names[:1], [generator.choice(names)]])
            compression = generator.choice([zipfile.ZIP_STORED] * 3 + [zipfile.ZIP_DEFLATED])
            return signed(rewritten(content, {name: trap}, drop, compression))
        case _:  # values
            state = torch.load(io.BytesIO(content), weights_only=True)
            state["state"] = list(state["state"])
            for _ in range(generator.choice([1, 1, 1, 2, 3])):
                change(state, generator)
            return signed(archived(state))


def change(state, generator):
    """Replace a random part of a state by something else."""
    inner, keys = state, []
    while True:
        keys.append(generator.choice(list(inner) if isinstance(inner, dict) else range(len(inner))))
        value = inner[keys[-1]]
        if not isinstance(value, dict | list) or not value or generator.random() < 0.1:
            break
        inner = value
    kind = generator.randrange(5)
    if isinstance(value, torch.Tensor) and kind:
        inner[keys[-1]] = altered(value, generator)
    elif kind == 1 and isinstance(inner, dict):
        del inner[keys[-1]]
    elif kind == 2:
        other = generator.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
        inner[keys[-1]], inner[other] = inner[other], value
    elif kind == 3 and isinstance(inner, dict):
        inner[generator.choice(["x", "a\nb", "agents", "head", 5])] = value
    else:
        inner[keys[-1]] = generator.choice(EVIL + LARGE * (keys[0] != "config"))


def altered(x, generator):
    """Return a tensor with other numbers, of another shape, or of another dtype."""
    if 0 in x.stride():  # one number, expanded before
        return x[:1].clone()
    match generator.randrange(6):
        case 0:
            return x.to(generator.choice([torch.float32, torch.int64, torch.uint8, torch.bool, torch.bfloat16]))
        case 1:
            return x.flatten()[: generator.randrange(x.numel() + 1)].clone()
        case 2:
            return torch.zeros(1, dtype=x.dtype).expand(1 << generator.choice([4, 20, 40]))  # one number, expanded
        case 3 if x.is_floating_point():
            x = x.clone()
            x.view(-1)[generator.randrange(max(1, x.numel())) :][:1] = float("nan")
            return x
        case _:
            x = x.clone()
            flat = x.view(-1)
            for _ in range(generator.choice([1, 1, 5, 50]) if len(flat) else 0):
                value = generator.choice([0, 1, flat[generator.randrange(len(flat))]])
                flat[generator.randrange(len(flat))] = value
            return x


def unsound(path):
    """Return what is wrong with the worlds in a checkpoint that a run has written, or an empty string."""
    saved = torch.load(io.BytesIO(unsigned(path)), weights_only=True)
    world = saved["config"]["world"]
    v, height, width, agents = (world[key] for key in ("vision", "height", "width", "agents"))
    for state in saved["envs"]:
        arrays = {key: np.asarray(value) for key, value in state.items()}
        row, column = arrays["position"].astype(int)
        which = np.arange(len(row)) // agents
        if (arrays["grid"][which, row, column] != arrays["colour"]).any():
            return "agents are not where the grid says"
        if ((arrays["grid"] >= 3).sum((1, 2)) != agents).any():
            return "the grid shows other agents than there are"
        field = arrays["grid"][:, v : v + height, v : v + width]
        if (arrays["grid"] == 2).sum() - (field == 2).sum() != arrays["grid"].size - field.size:
            return "a wall of the margin is missing"
    return ""


def problem(main, *arguments):
    """Return what is wrong with how a command has ended, or an empty string, and its exit code."""
    out = io.StringIO()
    err = io.StringIO()
    code = 0
    sys.argv, handlers = ["command", *arguments], logging.root.handlers[:]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as exit:
        code = exit.code
    except BaseException as error:
        return f"raised {error!r}", 1
    logging.root.handlers[:] = handlers
    said = err.getvalue()
    if code == 0:
        return "", code
    plain = said.startswith("error: ") and said.count("\n") == 1 and said[:-1].isprintable()
    return ("" if plain and "PARTICLE_GRID_TRACEBACK" not in said else f"ended with {code}: {said[-600:]}"), code


def main(good, folder, first, end):
    """Let commands read attacked files, and write the outcomes to done.jsonl."""
    from particle_grid import eval as evaluation
    from particle_grid import train
    from particle_grid.evaluation import match

    match.STEPS = 8
    start = 0
    os.chdir(folder)
    path = Path("attacked.pt")
    with open("done.jsonl", "w") as done:
        for seed in [-1, *range(first, end)]:  # the first is the intact file, which compiles everything
            path.write_bytes(attack(good, seed) if seed >= 0 else good.read_bytes())
            begin, run = time.monotonic(), f"run{seed}"
            what, _ = problem(evaluation.main, f"checkpoint={path}", "seeds=1", "steps=2")
            if not what:
                what, code = problem(train.main, f"resume={path}", "trainer.total_steps=768", f"hydra.run.dir={run}")
                what = what or (unsound(Path(run) / "checkpoint.pt") if code == 0 else "")
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - start
            if seed < 0:
                start = grown
            elif time.monotonic() - begin > SECONDS:
                what = what or f"took {time.monotonic() - begin:.0f} s"
            elif grown > MEMORY:
                what, start = what or f"grew by {grown >> 20} MiB", start + grown
            if seed >= 0:
                done.write(json.dumps({"seed": seed, "problem": what}) + "\n")
                done.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
