"""What size: each file gives one dense experiment, from which studies derive their arms."""

from moe.registry import register

register("size", "tiny", "configs.tiny:config", "minutes on two CPU cores")
register("size", "laptop", "configs.laptop:config", "hours on two CPU cores")
register("size", "small", "configs.small:config", "about an hour on one GPU")
register("size", "base", "configs.base:config", "a TPU slice or several GPUs")
