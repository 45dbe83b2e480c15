"""The key that was meant by a name that is none: other trainers' words, misspelt ones, and those of another section."""

from __future__ import annotations

import difflib
import re

from srgan_dist.config.fields import choosers, known_keys, lists_of_sections

# What other trainers and papers call it, by our key.
_OTHER_WORDS = {
    "run.dir": "output_dir out_dir save_dir work_dir exp_dir log_dir outdir output",
    "run.seed": "manual_seed random_seed",
    "run.resume": "resume_from resume_state resume_from_checkpoint",
    "run.ranks": "gpus num_gpu num_gpus nproc num_processes devices world_size",
    "run.init_from": "pretrained pretrain pretrained_path pretrain_network_g init weights_path load_from",
    "data.train": "dataset datasets dataroot dataroot_gt train_dir train_data data_dir data_path",
    "data.validation": "val val_dir valid valid_dir val_data validation_dir test_dir",
    "data.scale": "upscale upscale_factor scale_factor sf factor",
    "data.patch_size": "patch crop crop_size gt_size hr_size img_size image_size resolution",
    "data.batch_size": "bs batch batchsize total_batch_size global_batch_size",
    "data.micro_batch": "batch_size_per_gpu per_device_train_batch_size micro_batch_size microbatch mbs "
    "gradient_accumulation_steps accumulate_grad_batches accum_iter grad_accum",
    "data.workers": "num_workers num_worker_per_gpu dataloader_num_workers",
    "generator.name": "arch model network_g net_g netg which_model_g",
    "generator.channels": "nf num_feat n_feats ngf dim width",
    "generator.blocks": "nb num_block num_blocks n_resblocks num_res_blocks depth",
    "generator.growth": "gc num_grow_ch growth_rate",
    "discriminator.name": "network_d net_d netd which_model_d",
    "discriminator.channels": "ndf",
    "discriminator.layers": "n_layers n_layers_d num_layers",
    "loss.pixel.weight": "pixel_weight l1_weight lambda_pixel",
    "loss.perceptual.weight": "perceptual_weight feature_weight lambda_perceptual vgg_weight",
    "loss.perceptual.network": "vgg_type",
    "loss.perceptual.layers": "layer_weights feature_layers perceptual_layers vgg_layers",
    "loss.perceptual.normalise": "normalize",
    "loss.adversarial.weight": "gan_weight adv_weight lambda_gan adversarial_weight",
    "loss.adversarial.kind": "gan_type gan_mode gan_loss",
    "loss.adversarial.r1_weight": "r1 r1_gamma gp_weight",
    "train.steps": "epoch epochs iter iters niter n_iter iterations num_iters total_iter total_iters num_epochs "
    "max_epochs max_iter max_iters max_steps num_steps num_train_epochs total_steps",
    "train.pretrain_steps": "pretrain_iters pretrain_epochs psnr_steps",
    "train.g_per_d": "n_critic d_steps g_steps net_d_iters",
    "train.precision": "amp fp16 bf16 dtype mixed_precision half",
    "train.compile": "torch_compile use_compile dynamo_backend",
    "train.recompute": "gradient_checkpointing grad_checkpoint use_checkpoint",
    "train.ema_decay": "ema",
    "train.clip_grad_norm": "clip grad_clip clip_grad max_grad_norm gradient_clip_val gradient_clipping",
    "train.threads": "num_threads omp_num_threads",
    "optimizer.generator.learning_rate": "lr learningrate rate base_lr lr_g g_lr learning_rate_g",
    "optimizer.discriminator.learning_rate": "lr_d d_lr learning_rate_d",
    "optimizer.generator.schedule": "scheduler lr_scheduler lr_schedule",
    "optimizer.generator.warmup_steps": "warmup warmup_iter warmup_iters warmup_epochs",
    "optimizer.generator.min_learning_rate": "min_lr eta_min",
    "optimizer.betas": "beta beta1 beta2 adam_betas",
    "optimizer.weight_decay": "wd decay",
    "log.every": "print_freq log_freq log_interval log_every logging_steps log_every_n_steps",
    "checkpoint.every": "save_freq save_every save_interval save_steps save_checkpoint_freq",
    "checkpoint.keep": "save_total_limit keep_last save_top_k",
    "validate.every": "val_freq val_interval eval_every eval_interval eval_steps val_every",
    "tracker.name": "logger wandb report_to use_wandb tensorboard",
    "tracker.project": "wandb_project project_name",
}
_MEANT = {word: key for key, words in _OTHER_WORDS.items() for word in words.split()}


def suggestion(name: str) -> str:
    """What is said after a name that is no key: the nearest key, why it does not fit, or the sections that there are.

    Args:
        name: As it was written, such as ``optimizer.lr``.

    Returns:
        Such as "; did you mean optimizer.generator.learning_rate?".
    """
    if (item := re.fullmatch(r"(.+)\.\d+\.(\w+)", name)) and item[1] in lists_of_sections():
        return _suggestion_in_item(item[1], item[2])
    keys = known_keys()
    for chooser in choosers():
        if name in keys and name.startswith(f"{chooser.rpartition('.')[0]}."):
            return f"; it belongs to another {chooser} than the one chosen"
    if meant := meant_key(name):
        return f"; did you mean {meant}?"
    return f"; the sections are {', '.join(sections())}"


def _suggestion_in_item(key: str, name: str) -> str:
    """The same in a section of a list, where ``name`` stands without the sections around it."""
    items = lists_of_sections()[key]
    names = list(dict.fromkeys(one.name.rpartition(".")[2] for part in items for one in part.keys))
    if name in names and items[0].chosen:
        return f"; it belongs to another {items[0].chosen.key} than the one chosen"
    if close := difflib.get_close_matches(name, names, n=1, cutoff=0.5):
        return f"; did you mean {close[0]}?"
    return f"; the keys are {', '.join(names)}"


def meant_key(name: str) -> str | None:
    """The key, or the section, that a name most likely means; None where nothing is near."""
    keys, name = known_keys(), name.lower().replace("-", "_")
    if name in keys:
        return name
    section, _, last = name.rpartition(".")
    if meant := _MEANT.get(last):
        near = f"{section}.{meant.rpartition('.')[2]}"
        return near if near in keys else meant
    if close := difflib.get_close_matches(name, keys if "." in name else sections() + keys, n=1, cutoff=0.5):
        return close[0]
    return next((key for key in keys if key.rpartition(".")[2] == last), None)  # the right key in the wrong section


def sections() -> list[str]:
    """The names of the sections, by the alphabet."""
    return sorted({key.partition(".")[0] for key in known_keys()})
