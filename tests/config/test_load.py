"""The configuration: what is read, what wins, and how mistakes are told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from srgan_dist.config.fields import parts
from srgan_dist.config.load import config_from, load_config
from srgan_dist.config.models import RRDBConfig
from srgan_dist.config.root import Config
from srgan_dist.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def load(*overrides: str, text: str | None = None, folder: Path | None = None) -> Config:
    file = None
    if text is not None:
        assert folder
        file = folder / "config.yaml"
        file.write_text(text)
    return load_config(file, overrides)


def test_command_line_wins_over_yaml_wins_over_defaults(tmp_path: Path) -> None:
    config = load("--train.steps=7", text="train: {steps: 5, g_per_d: 3}", folder=tmp_path)
    assert (config.train.steps, config.train.g_per_d, config.train.pretrain_steps) == (7, 3, 0)


def test_the_environment_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUN", '{"seed": 5}')
    monkeypatch.setenv("TRAIN__STEPS", "5")
    assert load() == Config()


def test_values_as_people_write_them(tmp_path: Path) -> None:
    config = load(
        "--optimizer.generator.learning_rate=1e-05",
        "--optimizer.generator.milestones=[10,20]",
        "--data.train=a",
        "--data.train=b",
        text="optimizer: {discriminator: {learning_rate: 2e-4}}\ndata: {validation: one}\ntrain: {steps: 1_000}",
        folder=tmp_path,
    )
    assert config.optimizer.generator.learning_rate == 1e-5
    assert config.optimizer.generator.milestones == (10, 20)
    assert config.optimizer.discriminator.learning_rate == 2e-4
    assert config.data.train == ("a", "b")
    assert config.data.validation == ("one",)
    assert config.train.steps == 1000


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["a"], ["a"]),
        (["a", "b"], ["a", "b"]),
        (["a,b"], ["a", "b"]),
        (["[a, b ]"], ["a", "b"]),
        (["a", "[b,c]"], ["a", "b", "c"]),
        (['["a","b, c"]'], ["a", "b, c"]),
        (["1"], ["1"]),
        (["[]"], []),
        (["shards/{a,b}"], ["shards/{a,b}"]),
        (["{a,b}/x,c"], ["{a,b}/x", "c"]),
        (['a"b'], ['a"b']),
        (["/x/[0-9].tar"], ["/x/[0-9].tar"]),
        (["pipe:cat 'x y' | z"], ["pipe:cat 'x y' | z"]),
        (["s3://bucket/x=y"], ["s3://bucket/x=y"]),
    ],
)
def test_lists_as_people_write_them(arguments: list[str], expected: list[str]) -> None:
    assert list(load(*(f"--data.train={text}" for text in arguments)).data.train) == expected
    assert list(load(*(part for text in arguments for part in ("--data.train", text))).data.train) == expected


def test_none_takes_a_limit_away() -> None:
    config = load("--stability.grad_ratio=None", "--stability.max_psnr_drop=None", "--data.micro_batch=None")
    assert (config.stability.grad_ratio, config.stability.max_psnr_drop, config.data.micro_batch) == (None, None, None)


@pytest.mark.parametrize("nothing", ["None", "null", "Null", "NULL", "~", ""])
def test_nothing_is_the_same_on_the_command_line_and_in_a_file(tmp_path: Path, nothing: str) -> None:
    in_file = load(text=f"stability: {{grad_ratio: {nothing}}}\nrun: {{init_from: {nothing}}}", folder=tmp_path)
    on_line = load(f"--stability.grad_ratio={nothing}", f"--run.init_from={nothing}")
    assert in_file == on_line
    quoted = f"stability: {{grad_ratio: '{nothing}'}}\nrun: {{init_from: '{nothing}'}}"
    assert load(text=quoted, folder=tmp_path) == on_line
    assert (in_file.stability.grad_ratio, in_file.run.init_from) == (None, None)
    for key in ("train.steps", "run.dir", "data.train", "tracker.name"):
        section, name = key.split(".")
        messages = []
        for overrides, text in ([f"--{key}={nothing}"], ""), ([], f"{section}: {{{name}: {nothing}}}"):
            with pytest.raises(UserError, match=f"{key} is None; allowed: .*leave it out for the default") as caught:
                load(*overrides, text=text, folder=tmp_path)
            messages.append(str(caught.value))
        assert messages[1] == f"{tmp_path}/config.yaml:1: {messages[0]}"


def test_of_several_files_the_later_wins_key_by_key(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("train: {steps: 500, g_per_d: 2}\ngenerator: {name: rrdb, blocks: 3}")
    (tmp_path / "b.yaml").write_text("train:\n  g_per_d: 3\ngenerator: {blocks: 4}")
    files = ["--config", f"{tmp_path}/a.yaml", f"--config={tmp_path}/b.yaml"]
    config = config_from([*files, "--generator.growth=8"], prog="train.py")
    assert (config.train.steps, config.train.g_per_d) == (500, 3)
    assert config.generator == RRDBConfig(blocks=4, growth=8)
    (tmp_path / "b.yaml").write_text("train:\n  g_per_d: -3")
    with pytest.raises(UserError, match=r"^\S+/b\.yaml:2: train\.g_per_d: allowed are"):
        config_from(files, prog="train.py")
    (tmp_path / "a.yaml").write_text("\ntrain: {steps: 0}")
    (tmp_path / "b.yaml").write_text("run: {seed: 1}")
    with pytest.raises(UserError, match=r"^\S+/a\.yaml:2: train\.steps is 0"):
        config_from(files, prog="train.py")


def test_a_configuration_file_without_a_name_is_refused() -> None:
    with pytest.raises(UserError, match="--config is empty"):
        config_from(["--config="], prog="train.py")


def test_an_override_leaves_what_shares_an_alias_alone(tmp_path: Path) -> None:
    text = "optimizer: {pretrain: &rate {learning_rate: 0.001}, generator: *rate}"
    optimizer = load("--optimizer.pretrain.learning_rate=1", text=text, folder=tmp_path).optimizer
    assert (optimizer.pretrain.learning_rate, optimizer.generator.learning_rate) == (1, 0.001)


@pytest.mark.parametrize(
    ("override", "text", "place"),
    [
        ("--generator.name=rrbd", "generator: {blocks: 3}", ""),
        ("--generator.blocks=3", "run: {seed: 1}\ngenerator: {name: rrbd}", "FILE:2: "),
        ("--data.patch_size=97", "data: {scale: 4}", ""),
        ("--run.seed=1", "data:\n  scale: 4\n  patch_size: 97", "FILE:3: "),
        ("--optimizer.generator.milestones=5,3", "optimizer: {generator: {gamma: 1}}", ""),
        ("--run.seed=1", "optimizer:\n  generator:\n    gamma: 1\n    milestones: [5, 3]", "FILE:4: "),
        ("--optimizer.betas=0.5,7", "optimizer: {weight_decay: 0}", ""),
        ("--run.seed=1", "train:\n  steps: 5\n  pretrain_steps: 6", "FILE:3: "),
        ("--run.allow_changes=data.x", "run: {seed: 1}", ""),
        ("--run.seed=1", "run:\n  allow_changes: data.x", "FILE:2: "),
    ],
)
def test_a_mistake_is_told_where_it_was_made(tmp_path: Path, override: str, text: str, place: str) -> None:
    with pytest.raises(UserError) as caught:
        load(override, text=text, folder=tmp_path)
    told = str(caught.value).replace(str(tmp_path / "config.yaml"), "FILE")
    assert told.startswith(place)
    assert place or "FILE" not in told


def test_the_last_of_several_values_wins() -> None:
    assert load("--train.steps=5", "--train.steps=-1", "--train.steps", "7").train.steps == 7


def test_one_key_of_a_section_leaves_the_others_at_their_defaults() -> None:
    assert load("--optimizer.pretrain.warmup_steps=5").optimizer.pretrain.learning_rate == (
        Config().optimizer.pretrain.learning_rate
    )


def test_a_choice_keeps_its_class(tmp_path: Path) -> None:
    config = load("--generator.blocks=3", text="generator: {name: rrdb}", folder=tmp_path)
    assert config.generator == RRDBConfig(blocks=3)
    assert load("--generator.blocks=3").generator.name == "srresnet"


def test_the_resolved_configuration_gives_itself_back(tmp_path: Path) -> None:
    config = load("--generator.name=rrdb", "--loss.perceptual.network=efficientnet_lite0", "--train.steps=12")
    assert load(text=config.to_yaml(), folder=tmp_path) == config
    assert set(yaml.safe_load(config.to_yaml())) >= {"run", "data", "validate", "tracker"}


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().train.steps = 3  # type: ignore[misc]


SWEEPS = {"study.yaml", "sweep.yaml"}  # of which tests/sweeps says whether they are sound
CONFIGS = sorted(path for path in (ROOT / "configs").glob("*.yaml") if path.name not in SWEEPS)


@pytest.mark.parametrize("file", CONFIGS, ids=lambda path: path.name)
def test_the_shipped_files_are_sound(file: Path) -> None:
    config = load_config(file, [])
    assert str(config.run.dir) == f"runs/{file.stem}"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--train.stpes=5"], "unknown option --train.stpes; did you mean train.steps?"),
        (["--trian.steps=5"], "unknown option --trian.steps; did you mean train.steps?"),
        (["--learning_rate=1"], "did you mean optimizer"),
        (["--train.step=5"], "did you mean train.steps?"),
        (["--train.steps=0"], "train.steps is '0': input should be greater than 0"),
        (["--train.steps=many"], "train.steps is 'many': input should be a valid integer"),
        (["--train.precision=fp8"], "train.precision is 'fp8': input should be 'fp32', 'bf16' or 'fp16'"),
        (["--optimizer.generator.learning_rate=nan"], "input should be a finite number"),
        (["--generator.name=swin"], "generator: name is 'swin'; allowed: srresnet, rrdb, msrresnet"),
        (["--generator=rrdb"], "--generator is a section: set its keys, such as --generator.name"),
        (
            ["--train.steps=None"],
            "train.steps is None; allowed: whole number from 1; leave it out for the default, 100000",
        ),
        (["--optimizer.lr=1"], "unknown option --optimizer.lr; did you mean optimizer.generator.learning_rate?"),
        (["--generator.name=rrbd"], "msrresnet, compact, span, spandrel, module:Class; did you mean rrdb?"),
        (["train.steps=5"], "train.steps=5: an option begins with two dashes: --train.steps=5"),
        (["--optimizer.betas=0.5"], "optimizer.betas.1"),
        (["--generator.name=rrdb", "--generator.norm=batch"], "it belongs to another generator.name"),
        (
            ["--loss.perceptual.network=efficientnet_lite0", "--loss.perceptual.layer=conv5_4"],
            "it belongs to another loss.perceptual.network",
        ),
        (["--data.patch_size=97"], "data.patch_size is 97, not a multiple of data.scale 4"),
        (["--data.micro_batch=3"], "data.batch_size is 16, not a multiple of data.micro_batch 3"),
        (
            ["--train.steps=5", "--train.pretrain_steps=6"],
            "train.pretrain_steps is 6, more than train.steps 5",
        ),
        (
            ["--generator.name=msrresnet", "--data.scale=8"],
            "data.scale is 8, but generator.name=msrresnet has scales 2, 3, 4",
        ),
        (["--discriminator.name=unet", "--data.patch_size=100"], "discriminator.name=unet needs a multiple of 8"),
        (["--optimizer.generator.milestones=[5,3]"], "milestones must ascend, got [5, 3]"),
        (["--optimizer.pretrain.min_learning_rate=1"], "min_learning_rate is 1, above learning_rate 0.0001"),
        (
            ["--loss.pixel.weight=0", "--loss.perceptual.weight=0", "--loss.adversarial.weight=0"],
            "are all 0: nothing is learnt",
        ),
        (["steps=5"], "steps=5: an option begins with two dashes: --train.steps=5"),
        (["--train.steps"], "train.steps"),
        (
            ["--train.compile=true", "--loss.adversarial.r1_weight=1"],
            "second derivatives, which compiled networks lack",
        ),
    ],
)
def test_a_mistake_is_told_in_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        load(*overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {stepz: 4}", "unknown key train.stepz; did you mean train.steps?"),
        ("trains: {steps: 4}", "unknown key trains; did you mean train?"),
        ("steps: 4", "did you mean train.steps?"),
        ("generator: {blcks: 4}", "unknown key generator.blcks; did you mean generator.blocks?"),
        ("train: 4", "train is 4; expected keys, such as steps"),
        ("train: [", "not YAML"),
        ("- 1", "expected sections"),
        ("train: {steps: 0}\ndata: {scale: 5}", "(and 1 more)"),
        ("generator: {name: [a]}", "generator: name is ['a']"),
        ("generator: rrdb", "generator is 'rrdb'; expected keys, such as name: srresnet"),
        ("loss: {perceptual: {weigth: 1}}", "unknown key loss.perceptual.weigth; did you mean loss.perceptual.weight?"),
        ("data.batch_size: 4", "is written with a dot; in a file keys stand in their section: data: {batch_size: 4}"),
        ("data.batchsize: 4", "in a file keys stand in their section: data: {batch_size: 4}"),
        ("optimizer: {generator.learning_rate: 0.1}", "section: optimizer: {generator: {learning_rate: 0.1}}"),
        ("generator.name: rrdb", "section: generator: {name: 'rrdb'}"),
        ("optimizer: {lr: 1}", "unknown key optimizer.lr; did you mean optimizer.generator.learning_rate?"),
        ("data: {train: 2026}", "data.train is 2026; expected a list, such as [a, b]"),
        ("data: {train: [2026]}", "data.train.0 is 2026; expected a text: put it in quotes"),
        ("data: {degradation: {kind: realesrgan, first: {blur_sigma: [3, 1]}}}", "data.degradation.first.blur_sigma: "),
    ],
)
def test_a_mistake_in_the_file_names_the_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load(text=text, folder=tmp_path)
    assert message in str(caught.value)
    assert str(tmp_path / "config.yaml") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.yaml: cannot read"):
        load_config(tmp_path / "nowhere.yaml", [])


@pytest.mark.parametrize("arguments", [["--help"], ["--help-all"], ["--train.stpes=1"]])
def test_help_and_mistakes_do_not_wait_for_torch(arguments: list[str]) -> None:
    code = (
        "import sys; from srgan_dist.cli.commands import main\n"
        f"try: main(['train', *{arguments!r}])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'wandb' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_every_field_has_a_description() -> None:
    def undescribed(model: type) -> list[str]:
        found = []
        for name, field in model.model_fields.items():  # type: ignore[attr-defined]
            if not field.description:
                found.append(f"{model.__name__}.{name}")
        return found

    sections = {part.section for part in parts()} | {Config}
    assert len(sections) > 15
    assert not [name for section in sections for name in undescribed(section)]
