"""What a sweep keeps: results on disk, taken again only where the same function made them."""

import functools
import math
import signal
import subprocess
import sys
from collections import deque

import numpy as np
import pytest
from fakes.sweeps import assert_same, product, quiet

from reservoir.sweep_points import as_seeds
from reservoir.sweep_store import fingerprint

# --- what is kept, and what is run again --------------------------------------------------------------------------


def test_only_new_points_are_run(tmp_path):
    calls = deque()
    quiet(product(calls), {"x": [1, 2]}, path=tmp_path)
    found = quiet(product(calls), {"x": [3, 2, 1]}, seeds=2, path=tmp_path)
    first, second = as_seeds(2)
    assert list(calls) == [(1, 1, first), (2, 1, first), (3, 1, first), (3, 1, second), (2, 1, second), (1, 1, second)]
    assert [run.stored for run in found] == [False, False, True, False, True, False]
    assert found.to_array().tolist() == [[3, 3], [2, 2], [1, 1]]
    assert len(list(tmp_path.iterdir())) == 6
    # What a partial function holds is part of what is run.
    quiet(functools.partial(product(calls), y=2), {"x": [1]}, path=tmp_path)
    assert calls[-1] == (1, 2, first)


def test_results_from_disk_equal_those_from_memory(tmp_path):
    def everything(generator):
        rng = np.random.default_rng(generator)
        return {
            "float": 0.1 + 0.2, "nan": math.nan, "infinity": -math.inf, "int": 2**70, "bool": True, "text": "µV",
            "none": None, "single": np.float32(0.1), "array": rng.standard_normal((2, 3)).astype(np.float32).T,
            "texts": ["a", "bc"], "empty": np.zeros((0, 2)), "complex": np.array([1j]), "zero": np.array(3),
        }  # fmt: skip

    want = quiet(everything, {})
    quiet(everything, {}, path=tmp_path)
    again = quiet(everything, {}, path=tmp_path)
    assert again.runs[0].stored
    assert_same(again, want)


def test_an_interrupted_sweep_goes_on(tmp_path):
    calls = deque()

    def work(x, *, generator):
        calls.append(x)
        if x == 3 and len(calls) == 3:
            raise KeyboardInterrupt
        return x

    with pytest.raises(KeyboardInterrupt):
        quiet(work, {"x": [1, 2, 3, 4]}, path=tmp_path)
    assert list(calls) == [1, 2, 3]
    assert quiet(work, {"x": [1, 2, 3, 4]}, path=tmp_path).to_array().ravel().tolist() == [1, 2, 3, 4]
    assert list(calls) == [1, 2, 3, 3, 4]


def test_a_killed_sweep_goes_on(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, signal, sys\n"
        "from reservoir.sweep import sweep\n"
        "def work(x, *, generator):\n"
        "    if x == 2 and not os.path.exists('killed'):\n"
        "        open('killed', 'w').close()\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return x * generator\n"
        "if __name__ == '__main__':\n"
        "    found = sweep(work, {'x': [0, 1, 2, 3]}, seeds=(7,), path='kept', progress=False)\n"
        "    print([run.stored for run in found], found.to_array().ravel().tolist())\n",
        encoding="utf-8",
    )
    command = [sys.executable, str(script)]
    options = {"cwd": tmp_path, "capture_output": True, "text": True, "check": False}
    assert subprocess.run(command, **options).returncode == -signal.SIGKILL
    assert len(list((tmp_path / "kept").glob("[0-9a-f]*.npz"))) == 2
    done = subprocess.run(command, **options)
    assert done.stdout.strip() == "[True, True, False, False] [0, 7, 14, 21]", done.stderr


def test_a_damaged_file_is_named(tmp_path):
    quiet(product(), {"x": [1]}, path=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match=rf"{file.name}' cannot be read: it is no result of a sweep .*it is run again"):
        quiet(product(), {"x": [1]}, path=tmp_path)


# --- other versions of a function ---------------------------------------------------------------------------------


def variants(constant=1):
    """Return functions of one name: as it is, commented, and with a captured constant."""

    def work(x, *, generator):
        return x + constant

    first = work

    def work(x, *, generator):  # a comment
        """Say what it does."""
        return x + constant  # more

    return first, work


def test_a_function_is_the_same_without_comments_and_another_with_other_constants():
    plainly, commented = variants()
    assert fingerprint(plainly) == fingerprint(commented)
    assert fingerprint(plainly) != fingerprint(variants(2)[0])
    assert fingerprint(functools.partial(plainly, x=1)) == fingerprint(plainly)


def test_functions_and_constants_of_the_same_file_count(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    text = "FACTOR = 2\nclass Box:\n    size = 1\ndef inner(x):\n    return x * FACTOR\n"
    text += "def outer(x):\n    return [inner(y) + Box.size for y in [x]]\n"
    texts = [text, text + "\nOTHER = 3\n", text.replace("= 2", "= 3"), text.replace("size = 1", "size = 2")]
    texts.append(text.replace("x * F", "x / F"))
    prints = []
    for k, own in enumerate(texts):
        (tmp_path / f"sweep_module_{k}.py").write_text(own, encoding="utf-8")
        module = __import__(f"sweep_module_{k}")
        prints.append(fingerprint(module.outer))
    assert prints[0] == prints[1]
    assert len(set(prints)) == 4


def test_results_of_another_version_are_not_taken_without_a_word(tmp_path):
    old, new = variants()[0], variants(10)[0]
    quiet(old, {"x": [1, 2]}, path=tmp_path)
    match = r"2 of 3 results in .* were made by another version of .*work \(the first: x=1, generator=\d+\)"
    with pytest.raises(ValueError, match=match):
        quiet(new, {"x": [1, 2, 3]}, path=tmp_path, changed="raise")
    with pytest.warns(UserWarning, match=match):
        found = quiet(new, {"x": [1, 2, 3]}, path=tmp_path)
    assert found.to_array().ravel().tolist() == [2, 3, 13]
    assert quiet(new, {"x": [1, 2]}, path=tmp_path, changed="reuse").to_array().ravel().tolist() == [2, 3]
    assert quiet(new, {"x": [1, 2]}, path=tmp_path, changed="again").to_array().ravel().tolist() == [11, 12]
    # They are of the new version now.
    assert quiet(new, {"x": [1, 2]}, path=tmp_path, changed="raise").to_array().ravel().tolist() == [11, 12]
