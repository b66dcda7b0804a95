"""The benchmarks measure what they say: a whole process tree, and pictures of the sizes they claim."""

from __future__ import annotations

import io
import sys

import pytest

from benchmarks import inputs, measure
from tests.loopback.model import arithmetic

BURN = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass\n"


def test_cpu_of_children_and_orphans_counts():
    parent = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BURN!r}])\n{BURN}"
    orphan = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {BURN!r}])\n{BURN}sys.exit(3)"
    for program, code in ((parent, 0), (orphan, 3)):
        cost = measure.run([sys.executable, "-c", program])
        assert cost.code == code
        assert 0.4 <= cost.cpu < 1.5
        assert cost.orphans == 0


def test_memory_of_the_tree_at_its_peak():
    child = "import time; data = bytearray(b'x') * 60_000_000; time.sleep(0.4)"
    parent = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}])"
    cost = measure.run([sys.executable, "-c", parent])
    assert 60e6 < cost.memory < 120e6
    assert cost.processes == 2


def test_what_does_not_end_is_ended():
    with pytest.raises(TimeoutError):
        measure.run([sys.executable, "-c", "import time; time.sleep(60)"], limit=0.3)


def test_output_is_kept():
    cost = measure.run([sys.executable, "-c", "import sys; print('out'); print('err', file=sys.stderr)"])
    assert (cost.output, cost.errors) == ("out\n", "err\n")


def test_every_question_has_the_answer_that_the_server_works_out():
    for number in range(50):
        question, answer = inputs.story(number)
        assert arithmetic(question) == str(answer)


def test_pictures_are_distinct_and_of_the_sizes_claimed(tmp_path):
    from PIL import Image

    root = inputs.picture_questions(tmp_path, 30)
    files = sorted((root / "mathvision" / "images").iterdir())
    assert len({file.read_bytes() for file in files}) == len(files) == 30
    for file in files:
        with Image.open(file) as picture:
            picture.load()
            pixels = picture.width * picture.height
        assert any(0.95 * low <= pixels <= high for _, low, high in inputs.PIXELS)
    one = inputs.draw(0)
    assert inputs.signed(one, 1) != inputs.signed(one, 2)
    with Image.open(io.BytesIO(inputs.signed(one, 1))) as signed, Image.open(io.BytesIO(one)) as drawn:
        assert list(signed.tobytes()) == list(drawn.tobytes())
