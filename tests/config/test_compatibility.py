"""What may differ from the checkpoint when a run goes on: key by key."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from srgan_dist.checkpointing.weights import load_weights, save_weights
from srgan_dist.config.compatibility import HARMLESS, as_begun, config_fingerprint, refuse_changes
from srgan_dist.config.fields import known_keys
from srgan_dist.config.load import load_config
from srgan_dist.config.root import Config
from srgan_dist.errors import UserError
from srgan_dist.models.discriminator import VGGDiscriminator
from srgan_dist.models.msrresnet import MSRResNet
from tests.conftest import metrics, options
from tests.ranks.faults import on_ranks, train_and_die

SHARDS = "0123456789abcdef"


def checkpoint(*overrides: str, shards: str = SHARDS) -> dict[str, Any]:
    """What a checkpoint of a run with these settings says, read back."""
    saved: dict[str, Any] = json.loads(json.dumps(config_fingerprint(load_config(None, overrides), shards=shards)))
    return saved


def refusal(old: dict[str, Any], *overrides: str, step: int = 10) -> str:
    """The line with which a run with these settings is refused, or nothing."""
    try:
        refuse_changes(old, load_config(None, overrides), shards=SHARDS, step=step)
    except UserError as error:
        return str(error)
    return ""


def is_harmless(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in HARMLESS)


def test_the_harmless_are_keys() -> None:
    keys = known_keys()
    assert all(any(key == name or key.startswith(f"{name}.") for key in keys) for name in HARMLESS)


def test_every_key_counts_but_the_harmless_and_the_path_of_the_shards() -> None:
    def keys(section: dict[str, Any], prefix: str = "") -> list[str]:
        found = []
        for name, value in section.items():
            is_value = f"{prefix}{name}" in known_keys()  # which a mapping may be, too
            found += [prefix + name] if is_value else keys(value, f"{prefix}{name}.")
        return found

    found = keys(checkpoint()["configuration"])
    assert {"run.seed", "data.batch_size", "generator.channels", "optimizer.betas", "train.g_per_d"} < set(found)
    for key in found:
        if key == "train.steps":
            continue
        old = checkpoint()
        *path, name = key.split(".")
        section = old["configuration"]
        for part in path:
            section = section[part]
        section[name] = "another"
        told = refusal(old)
        assert bool(told) == (not is_harmless(key) and key != "data.train"), key
        assert not told or f": {key}: another -> " in told
        assert not refusal(old, f"--run.allow_changes={key}")


def test_another_signature_or_token_is_no_change_and_is_not_kept() -> None:
    for source in ("https://h/a?X-Amz-Signature={}", "pipe:curl -H 'Authorization: Bearer {}' https://h/a"):
        first, second = (f"--data.train={source.format(secret)}" for secret in ("hunter2", "trustno1"))
        assert "hunter2" not in json.dumps(checkpoint(first))
        assert not refusal(checkpoint(first), second)
        as_once = checkpoint()
        as_once["configuration"]["data"]["train"] = [first.partition("=")[2]]  # 0.1.0 kept it as it was given
        assert not refusal(as_once, second)
        as_once["configuration"]["run"]["init_from"] = "https://me:hunter2@h/a"
        assert "https://***@h/a -> None" in refusal(as_once, second)


def test_all_differences_stand_in_one_line_with_the_ways_on() -> None:
    told = refusal(checkpoint(), "--data.batch_size=8", "--optimizer.betas=[0.9,0.999]", "--log.every=7")
    assert told == (
        "not the configuration of the checkpoint: data.batch_size: 16 -> 8, optimizer.betas: [0.9, 0.99] -> "
        "[0.9, 0.999]; set it back, start over by run.resume=never, or resume all the same by "
        "--run.allow_changes=data.batch_size,optimizer.betas"
    )
    changed = ["--data.batch_size=8", "--optimizer.betas=[0.9,0.999]"]
    assert not refusal(checkpoint(), *changed, "--run.allow_changes=data.batch_size,optimizer.betas")
    assert not refusal(checkpoint(), *changed, "--run.allow_changes=data,optimizer")
    told = refusal(checkpoint(), *changed, "--run.allow_changes=data.batch_size")
    assert "batch_size" not in told
    assert told.endswith("--run.allow_changes=optimizer.betas")


def test_a_choice_is_told_without_the_keys_that_come_with_it() -> None:
    told = refusal(checkpoint(), "--data.degradation.kind=realesrgan", "--data.degradation.margin=32")
    assert "data.degradation.kind: stored -> realesrgan; set it back" in told
    assert "margin" not in told
    told = refusal(checkpoint(), "--generator.name=rrdb")
    assert "generator.name: srresnet -> rrdb, generator.blocks: 16 -> 23; set it back" in told


def test_shards_are_known_by_their_content() -> None:
    assert not refusal(checkpoint("--data.train=there"), "--data.train=here")
    told = refusal(checkpoint(shards="fedcba9876543210"))
    assert "data.train: shards fedcba98 -> shards 01234567" in told
    assert not refusal(checkpoint(shards="fedcba9876543210"), "--run.allow_changes=data.train")


def test_a_key_of_a_newer_version_counts_where_it_is_used() -> None:
    old = checkpoint()
    del old["configuration"]["loss"]["adversarial"]["instance_noise"]
    old["configuration"]["train"]["gone"] = 3
    assert not refusal(old)
    assert "loss.adversarial.instance_noise: not known -> 0.1" in refusal(old, "--loss.adversarial.instance_noise=0.1")


@pytest.mark.parametrize("begun", ["0.1", "now", "replicate"])
def test_what_a_generator_did_by_default_stays_with_its_run(begun: str) -> None:
    """A version that has no generator.padding continued images by their last pixels."""
    old = checkpoint("--generator.name=rrdb", *(["--generator.padding=replicate"] if begun == "replicate" else []))
    if begun == "0.1":
        del old["configuration"]["generator"]["padding"]
    kept = "reflect" if begun == "now" else "replicate"
    config = load_config(None, ["--generator.name=rrdb"])
    resumed = as_begun(config, old)
    assert resumed.generator.model_dump()["padding"] == kept
    refuse_changes(old, resumed, shards=SHARDS, step=10)
    assert (resumed == config) == (kept == "reflect")
    other = {"reflect": "replicate", "replicate": "reflect"}[kept]
    chosen = as_begun(load_config(None, ["--generator.name=rrdb", f"--generator.padding={other}"]), old)
    with pytest.raises(UserError, match=f"generator.padding: {kept} -> {other}"):
        refuse_changes(old, chosen, shards=SHARDS, step=10)


def test_a_checkpoint_of_another_or_no_generator_changes_nothing() -> None:
    config = load_config(None, ["--generator.name=rrdb"])
    for section in ({"name": "srresnet"}, None, [1], {"name": "rrdb", "padding": "sideways"}):
        old = checkpoint()
        old["configuration"]["generator"] = section
        assert as_begun(config, old) == config


def test_steps_may_be_any_number_that_is_not_done_yet(caplog: pytest.LogCaptureFixture) -> None:
    old = checkpoint("--train.steps=100")
    assert not refusal(old, "--train.steps=1000", step=100)
    assert not refusal(old, "--train.steps=50", step=50)
    assert "train.steps is 49, but the checkpoint is of step 50: " in refusal(old, "--train.steps=49", step=50)
    assert not caplog.messages


@pytest.mark.parametrize("steps", [100, 200])
def test_a_schedule_that_depends_on_the_steps_is_told(steps: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="srgan_dist")
    cosine = ("--optimizer.generator.schedule=cosine", f"--train.steps={steps}")
    assert not refusal(checkpoint("--optimizer.generator.schedule=cosine", "--train.steps=100"), *cosine)
    line = "train.steps: 100 -> 200: the cosine of optimizer.generator is stretched to the new end"
    assert [line in message for message in caplog.messages] == [True] * (steps > 100)


@pytest.mark.parametrize(
    ("name", "near"),
    [("train.batch_size", "data.batch_size"), ("dta", "data"), ("generator.blocks.norm", "generator.")],
)
def test_what_is_allowed_must_be_a_key(name: str, near: str) -> None:
    with pytest.raises(UserError, match=f"run.allow_changes names an unknown key '{name}'; did you mean {near}"):
        load_config(None, [f"--run.allow_changes=run.seed,{name}"])


def test_it_is_written_as_people_write_it() -> None:
    assert load_config(None, ["--run.allow_changes=run.seed,data"]).run.allow_changes == ("run.seed", "data")
    assert Config(run={"allow_changes": "run.seed"}).run.allow_changes == ("run.seed",)


PIXELS: dict[str, Any] = {"train.pretrain_steps": 2, "train.steps": 2, "loss.perceptual.weight": 0}


def start(folder: Path, shards: Path, changes: dict[str, Any]) -> tuple[int | None, str]:
    """The exit code of a run, and its last line."""
    (done,) = on_ranks(train_and_die, options({"run.dir": folder, "data.train": shards} | PIXELS | changes), None)
    assert "Traceback" not in done.err
    return done.code, done.err.splitlines()[-1]


def test_a_run_is_refused_or_goes_on(shards: Path, tmp_path: Path) -> None:
    assert start(tmp_path / "run", shards, {})[0] == 0
    before = (tmp_path / "run/metrics.jsonl").read_text()
    shutil.copytree(shards, tmp_path / "moved")
    other = {"train.steps": 3, "generator.channels": 12, "optimizer.weight_decay": 0.1}
    code, told = start(tmp_path / "run", tmp_path / "moved", other)
    assert code == 2
    assert "generator.channels: 8 -> 12, optimizer.weight_decay: 0.0 -> 0.1; set it back" in told
    # Weights of another size never fit, whatever is allowed.
    allowed = {"run.allow_changes": "generator,optimizer.weight_decay"}
    code, told = start(tmp_path / "run", shards, other | allowed)
    assert code == 2
    assert "step-000002: does not fit this configuration" in told
    assert (tmp_path / "run/metrics.jsonl").read_text() == before
    harmless = {"train.steps": 4, "log.every": 2, "checkpoint.keep": 1, "data.micro_batch": 2, "data.workers": 1}
    assert start(tmp_path / "run", tmp_path / "moved", harmless)[0] == 0
    assert [line["step"] for line in metrics(tmp_path / "run")] == [1, 2, 4]
    state = json.loads((tmp_path / "run/checkpoints/step-000004/state.json").read_text())
    assert state["origin"]["configuration"]["train"]["steps"] == 4
    code, told = start(tmp_path / "run", shards, {"train.steps": 3})
    assert code == 2
    assert "train.steps is 3, but the checkpoint is of step 4" in told


def test_pretraining_alone_may_go_on_as_a_gan(shards: Path, tmp_path: Path) -> None:
    assert start(tmp_path / "run", shards, {})[0] == 0
    assert not (tmp_path / "run/checkpoints/step-000002/discriminator.safetensors").exists()
    for folder in ("run", "whole"):
        assert start(tmp_path / folder, shards, {"train.steps": 5})[0] == 0
    files = sorted(path.name for path in (tmp_path / "whole/checkpoints/step-000005").iterdir())
    assert "discriminator.safetensors" in files
    for name in files:
        if name.endswith(".safetensors") or name.startswith("optimizer"):
            first, second = (tmp_path / folder / "checkpoints/step-000005" / name for folder in ("run", "whole"))
            assert first.read_bytes() == second.read_bytes(), name


STILL = {"optimizer.pretrain.learning_rate": 1e-30, "train.ema_decay": 0, "train.steps": 1, "train.pretrain_steps": 1}


@pytest.mark.parametrize("kind", ["ours", "params_ema", "params", "bare"])
def test_a_run_begins_with_given_weights(shards: Path, tmp_path: Path, kind: str) -> None:
    torch.manual_seed(3)
    weights = MSRResNet(scale=4, channels=8, blocks=1).state_dict()
    file = tmp_path / ("weights.safetensors" if kind == "ours" else "weights.pth")
    if kind == "ours":
        save_weights(file, weights, {})
    else:  # BasicSR keeps both, and the average is what one wants
        zeros = {key: torch.zeros_like(value) for key, value in weights.items()}
        content = {"params_ema": {"params": zeros, "params_ema": weights}, "params": {"params": weights}}
        torch.save(content.get(kind, weights), file)
    network = {"generator.name": "msrresnet", "generator.channels": 8, "generator.blocks": 1}
    unknown = ("generator.norm", "generator.skip", "generator.upsampler", "generator.end_kernel")

    def run(**changes: Any) -> int | None:
        base = {"run.dir": tmp_path / "run", "data.train": shards, "loss.perceptual.weight": 0, "run.init_from": file}
        command = [part for part in options(base | STILL | network | changes) if not part[2:].startswith(unknown)]
        (done,) = on_ranks(train_and_die, command, None)
        return done.code

    assert run() == 0
    trained, _ = load_weights(tmp_path / "run/weights/generator.safetensors")
    assert trained.keys() == weights.keys()
    for key, value in weights.items():
        torch.testing.assert_close(trained[key], value, rtol=0, atol=1e-20)
    file.unlink()  # needed at the start only
    assert run(**{"train.steps": 2, "train.pretrain_steps": 1, "run.allow_changes": "train.pretrain_steps"}) == 0


def test_the_discriminator_begins_with_given_weights_too(shards: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    weights = VGGDiscriminator(channels=4).state_dict()
    torch.save({"discriminator": {f"module.{name}": value for name, value in weights.items()}}, tmp_path / "d.pth")
    base = {"run.dir": tmp_path / "run", "data.train": shards, "loss.perceptual.weight": 0, "discriminator.channels": 4}
    still = {"optimizer.discriminator.learning_rate": 1e-30, "train.steps": 1, "train.pretrain_steps": 0}
    base["discriminator.norm"] = "batch"
    command = options(base | still | {"run.init_discriminator_from": tmp_path / "d.pth"})
    (done,) = on_ranks(train_and_die, command, None)
    assert done.code == 0, done
    trained, _ = load_weights(tmp_path / "run/checkpoints/step-000001/discriminator.safetensors", role="discriminator")
    assert trained.keys() == weights.keys()
    for key, value in weights.items():
        torch.testing.assert_close(trained[key], value, rtol=0, atol=1e-20)


def test_weights_for_a_discriminator_that_is_never_trained_are_refused() -> None:
    with pytest.raises(UserError, match="leaves no steps to the discriminator"):
        load_config(None, ["--train.steps=5", "--train.pretrain_steps=5", "--run.init_discriminator_from=d.pth"])


def test_weights_that_do_not_fit_or_run_code_are_refused(shards: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "executed",))

    save_weights(tmp_path / "other.safetensors", MSRResNet(scale=4, channels=8, blocks=1).state_dict(), {})
    torch.save({"params": {"a": Bomb()}}, tmp_path / "bomb.pth")
    torch.save({"params": [1, 2]}, tmp_path / "numbers.pth")
    (tmp_path / "text.pth").write_text("no weights")
    for name, reason in {
        "other.safetensors": "weights of another generator than the configured one",
        "bomb.pth": "not a file of weights",
        "numbers.pth": "not a file of weights (holds no state dict of tensors",
        "text.pth": "not a file of weights",
        "nowhere.pth": "there is no such weights file",
    }.items():
        code, told = start(tmp_path / "run", shards, {"run.init_from": tmp_path / name})
        assert code == 2
        assert told.startswith(f"srgan-dist: {tmp_path / name}: {reason}")
    assert not (tmp_path / "executed").exists()
