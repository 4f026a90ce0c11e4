"""Synonyms: names that other tools use for an option, a command or a value, and ours for them."""

from collections.abc import Mapping


def _by_synonym(names: Mapping[str, str]) -> dict[str, list[str]]:
    """Turn `{ours: "theirs theirs"}` around; a name may mean several of ours."""
    found: dict[str, list[str]] = {}
    for ours, theirs in names.items():
        for name in theirs.split():
            found.setdefault(name, []).append(ours)
    return found


# Of Ultralytics, timm, Keras, torchvision's references, Hugging Face and Lightning. Which one of
# ours is meant depends on the command: a suggestion is always an option that it has. Names under ""
# resemble one of ours and mean another thing.
OPTIONS = _by_synonym(
    {
        "": "cache drop-block drop-path flipud lr-min lrf min-lr names norm-weight-decay timer "
        "warmup-lr",
        "accumulate": "grad-accum-steps accum-iter accumulate-grad-batches gradient-accumulation "
        "gradient-accumulation-steps",
        "augment": "aug augmentation augmentations auto-augment aa",
        "balance": "class-weight class-weights weighted-sampler class-balance",
        "batch-size": "batch bs bsz b mini-batch-size train-batch-size per-device-train-batch-size",
        "budget": "time time-limit max-time timeout",
        "classes": "num-classes nb-classes n-classes nc",
        "clip": "clip-grad clip-grad-norm clipnorm grad-clip gradient-clip gradient-clip-val "
        "max-norm max-grad-norm",
        "compile": "torchcompile torch-compile",
        "config": "cfg recipe",
        "data": "input source src dataset images image img imgs photos",
        "deterministic": "use-deterministic-algorithms",
        "device": "gpu gpus gpu-id gpu-ids cpu cuda no-cuda use-cpu use-cuda accelerator",
        "dropout": "drop drop-rate dropout-rate",
        "ema": "model-ema model-ema-decay ema-decay",
        "epochs": "num-epochs n-epochs max-epochs num-train-epochs",
        "explain": "gradcam grad-cam cam heatmap heatmaps",
        "flip": "hflip horizontal-flip fliplr",
        "image-size": "imgsz img-size size resolution input-size resize crop-size train-crop-size",
        "json": "format",
        "label-smoothing": "smoothing",
        "layer-decay": "llrd layerwise-lr-decay",
        "log-every": "log-interval print-freq logging-steps",
        "lr": "learning-rate lr-rate lr0 base-lr initial-lr max-lr peak-lr",
        "model": "checkpoint ckpt weights",
        "monitor": "metric eval-metric metric-for-best-model",
        "neighbours": "k n-neighbors",
        "optimizer": "opt optim optimiser",
        "output": "out dest save-dir save-to project name",
        "patience": "early-stop early-stopping early-stopping-patience",
        "plan": "dry-run estimate",
        "precision": "amp half fp16 bf16 dtype mixed-precision use-amp",
        "quantize": "int8 quantization quantise",
        "quiet": "silent",
        "resume": "continue resume-from resume-from-checkpoint",
        "schedule": "sched scheduler lr-scheduler lr-scheduler-type lr-schedule",
        "seed": "random-seed random-state manual-seed",
        "size": "imgsz img-size image-size resolution input-size",
        "split": "subset",
        "tensorboard": "tb",
        "test-fraction": "test-split test-size test-ratio",
        "top": "topk k num-predictions",
        "tta": "test-time-augmentation",
        "unfreeze": "freeze freeze-backbone freeze-base trainable freeze-layers unfreeze-layers",
        "unknown": "conf confidence threshold min-confidence conf-thres",
        "val-fraction": "val-split validation-split validation-fraction val-size val-ratio "
        "valid-pct",
        "version": "v",
        "warmup": "warmup-ratio warmup-epochs warmup-steps lr-warmup-epochs",
        "weight-decay": "wd",
        "weights": "pretrained init initial-checkpoint pretrained-weights",
        "workers": "num-workers n-workers jobs j dataloader-num-workers num-loader-workers",
    }
)

# By the command that they follow
COMMANDS = {
    "xception": _by_synonym(
        {
            "train": "fit fine-tune finetune",
            "train --resume": "resume",
            "eval": "evaluate test val validate score",
            "predict": "classify infer inference",
            "runs": "list ls",
            "sample": "demo",
            "env": "info doctor",
            "configs": "recipes",
            "check": "lint",
        }
    ),
    "xception weights": _by_synonym({"list": "ls", "fetch": "download get", "verify": "check"}),
    "xception cache": _by_synonym({"ls": "list", "clear": "clean rm delete purge prune"}),
    "xception configs": _by_synonym({"ls": "list", "show": "cat print", "cp": "copy"}),
}

# Of settings and options with choices
VALUES = _by_synonym(
    {
        "accuracy": "acc top1",
        "adamw": "adam",
        "all": "full everything",
        "bf16": "bfloat16 bf16-mixed",
        "cosine": "cos",
        "cuda": "gpu gpus cuda:0 0",
        "fp16": "float16 half 16 16-mixed",
        "fp32": "float32 float full 32",
        "int8": "8 uint8",
        "macro_recall": "balanced-accuracy",
        "mirror": "flip hflip",
        "mps": "metal",
        "quick": "fast",
        "rotate90": "rotate rotation",
        "val": "validation valid dev",
    }
)
