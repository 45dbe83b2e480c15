"""Configuration files that people, editors and attackers write: one line with the file's line, and never a hang."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from srgan_dist.config.load import load_config
from srgan_dist.config.yaml_file import read_yaml
from srgan_dist.errors import UserError
from tests.conftest import ROOT, run


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join(9 * [f'*a{n - 1}'])}]" for n in range(1, levels)]
    return "\n".join([*lines, f"train: *a{levels - 1}"])


def chain(length: int) -> str:
    return "\n".join(["a0: &a0 {}"] + [f"a{n}: &a{n} {{x: *a{n - 1}}}" for n in range(1, length)])


def refusal(folder: Path, content: str | bytes) -> str:
    file = folder / "c.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        load_config(file)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert len(message) < 500 + len(str(file))
    return message.replace(str(file), "FILE")


NOT_CONFIGURATIONS: list[tuple[str | bytes, str]] = [
    ("\n\ngenerator: srresnet", "FILE:3: generator is 'srresnet'; expected keys, such as name: srresnet"),
    ("generator:\n", "FILE:1: generator is None; expected keys, such as name: srresnet"),
    ("train:\n", "FILE:1: train is None; expected keys, such as steps"),
    ("run: {seed: 1}\ntrain:\n  steps: 5\n  g_per_d: -1", "FILE:4: train.g_per_d"),
    ("optimizer:\n  betas:\n  - 0.5\n  - 7", "FILE:2: optimizer.betas.1"),
    ("train: {steps: 5}\n\nx: 1", "FILE:3: unknown key x"),
    ("a: b: c", "FILE:1: not YAML: mapping values are not allowed here"),
    ("train:\n\tsteps: 5", "FILE:2: not YAML: while scanning for the next token"),
    ("a: 1\n---\nb: 2", "FILE:2: not YAML: expected a single document"),
    ("train: *x", "FILE:1: not YAML: found undefined alias 'x'"),
    ("- 1", "FILE:1: expected sections such as 'train:' with keys"),
    (bomb(9), "FILE:5: more than 10000 values"),
    (bomb(100), "FILE:5: more than 10000 values"),
    (chain(5000), "FILE:19: more than 10000 values, or more than 20 deep"),
    ("train: &a [*a]", "FILE:1: aliases lead more than 20 deep"),
    ("train: &a {steps: *a}", "FILE:1: aliases lead more than 20 deep"),
    (
        "a: &a {b: 1}\ntrain: {<<: [" + ",".join(9 * ["*a"]) + "], <<: 5}",
        "FILE:2: the key << stands here and on line 2: keep one",
    ),
    ("data: " + "[" * 100_000, "FILE:1: lists and mappings are in each other more than 20 deep"),
    ("\n".join(" " * n + "- a:" for n in range(0, 100, 2)), "more than 20 deep"),
    ("train:\n  steps: " + "9" * 5000, "FILE:2: what stands here cannot be read as int"),
    ("train:\n  steps: " + "9" * 4000, "FILE:2: what stands here is a number of more than 64 bits"),
    ("train:\n  steps: 0x" + "f" * 100_000, "FILE:2: what stands here is a number of more than 64 bits"),
    ("train:\n  steps: 59" + 3000 * ":59", "FILE:2: what stands here is a number of more than 64 bits"),
    ("train: 1" + 3000 * ":59", "FILE:1: what stands here is a number of more than 64 bits"),
    ('run: {dir: "\\ud800"}', "FILE:1: run: dir holds half a character"),
    ("train: {steps: !!int x}", "FILE:1: what stands here cannot be read as int"),
    ("train: {steps: !!int ''}", "FILE:1: what stands here cannot be read as int"),
    ("train: {compile: !!bool x}", "FILE:1: what stands here cannot be read as bool"),
    ("train: {[a]: 1}", "FILE:1: what stands here as a key is no name"),
    ("train: {{a: 1}: 1}", "FILE:1: what stands here as a key is no name"),
    ("train: {1: 1}", "FILE:1: what stands here as a key is no name"),
    ("{null: 1}", "FILE:1: what stands here as a key is no name"),
    ('train: {"a\\nb": 1}', "FILE:1: what stands here as a key is no name"),
    ("train: {steps: 1,\n steps: 2}", "FILE:2: the key steps stands here and on line 1: keep one of them"),
    ("run:\n  dir: !!python/object/apply:os.system [ls]", "FILE:2: not YAML: could not determine a constructor"),
    ("run: {dir: !!binary aGk=}", "FILE:1: not YAML: could not determine a constructor"),
    ("run: {dir: !!timestamp 2026-13-45}", "FILE:1: not YAML: could not determine a constructor"),
    ('run: {dir: "a\\0b"}', "FILE:1: run: dir holds a null character"),
    ("run:\n  dir: a\0b", "FILE:2: not YAML: holds the character U+0000"),
    ("run:\n  dir: \x1b[31m", "FILE:2: not YAML: holds the character U+001B"),
    (b"run:\n  dir: \xff\xfe", "FILE:2: not YAML: the byte 0xff is not UTF-8"),
    ("run: {dir: a}".encode("utf-16"), "FILE:1: not YAML: the byte 0xff is not UTF-8"),
    (b"# " + b"x" * (1 << 20), "FILE: cannot read the configuration: has more than 1048576 bytes"),
    ("data: {train: 'http://me:hunter2@h/', scale: 'http://me:hunter2@h/'}", "'http://***@h/'"),
]


@pytest.mark.parametrize(("content", "message"), NOT_CONFIGURATIONS, ids=[message for _, message in NOT_CONFIGURATIONS])
def test_a_file_that_is_no_configuration_is_told_with_its_line(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    told = refusal(tmp_path, content)
    assert message in told
    assert "hunter2" not in told


def test_dates_are_texts_and_need_not_be_right(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("run: {dir: 2026-13-45}\ntracker: {project: 2026-11-26, tags: [=]}")
    config = load_config(tmp_path / "c.yaml")
    assert str(config.run.dir) == "2026-13-45"
    assert (config.tracker.project, config.tracker.tags) == ("2026-11-26", ("=",))


def test_anchors_and_merges_work(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "optimizer:\n  generator: &schedule {learning_rate: 0.001, schedule: cosine}\n"
        "  discriminator: {<<: *schedule, learning_rate: 0.002}\n  pretrain: *schedule\n"
    )
    optimizer = load_config(tmp_path / "c.yaml").optimizer
    assert optimizer.pretrain == optimizer.generator
    assert optimizer.discriminator.learning_rate == 0.002
    assert optimizer.discriminator.schedule == "cosine"


def test_a_mistake_on_the_command_line_names_no_line_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("train:\n  steps: 5\n")
    with pytest.raises(UserError) as caught:
        load_config(tmp_path / "c.yaml", ["--train.steps=0"])
    assert str(caught.value) == "train.steps is '0': input should be greater than 0"


def test_every_key_has_its_line(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("# a\ntrain:\n  steps: 5\nloss:\n  pixel: {weight: 1}\n")
    content, lines = read_yaml(tmp_path / "c.yaml")
    assert content == {"train": {"steps": 5}, "loss": {"pixel": {"weight": 1}}}
    assert lines == {"train": 2, "train.steps": 3, "loss": 4, "loss.pixel": 5, "loss.pixel.weight": 5}


def test_a_shells_process_substitution_is_read() -> None:
    program = "import sys; from srgan_dist.config.load import load_config; print(load_config(sys.argv[1]).train.steps)"
    shell = f"{sys.executable} -c \"$1\" <(echo 'train: {{steps: 7}}')"
    done = run("bash", "-c", shell, "bash", program, PYTHONPATH=str(ROOT))
    assert done.out == "7\n", done.err


@pytest.mark.timeout(20)
def test_what_is_no_file_is_told_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for path, kind in (
            (tmp_path / "fifo", "is a pipe, not a file"),
            (tmp_path / "socket", "is a socket, not a file"),
            (Path("/dev/zero"), "is a device, not a file"),
            (tmp_path, "is a folder, not a file"),
            (tmp_path / "none", "No such file"),
        ):
            with pytest.raises(UserError, match=f"^{path}: cannot read the configuration: {kind}"):
                load_config(path)
