"""The key that was meant, in other trainers' words."""

from __future__ import annotations

import pytest

from srgan_dist.config.fields import known_keys
from srgan_dist.config.suggest import _MEANT, meant_key, suggestion


def test_every_word_leads_to_a_key_and_is_none_itself() -> None:
    assert set(_MEANT.values()) <= set(known_keys())
    assert not set(_MEANT) & {key.rpartition(".")[2] for key in known_keys()}


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("optimizer.lr", "optimizer.generator.learning_rate"),
        ("lr", "optimizer.generator.learning_rate"),
        ("optimizer.discriminator.lr", "optimizer.discriminator.learning_rate"),
        ("optimizer.pretrain.lr", "optimizer.pretrain.learning_rate"),
        ("bs", "data.batch_size"),
        ("train.epochs", "train.steps"),
        ("num_workers", "data.workers"),
        ("data.batch-size", "data.batch_size"),
        ("TRAIN.STEPS", "train.steps"),
        ("generator.num_feat", "generator.channels"),
        ("discriminator.num_feat", "discriminator.channels"),
        ("trian.stpes", "train.steps"),
        ("keep", "checkpoint.keep"),
        ("xyzzy.keep", "checkpoint.keep"),
        ("qqqq", None),
    ],
)
def test_the_nearest_key_is_found(name: str, key: str | None) -> None:
    assert meant_key(name) == key


def test_where_nothing_is_near_the_sections_are_named() -> None:
    assert suggestion("qqqq").startswith("; the sections are checkpoint, data,")
