"""Where the packages of a wheel come from; all else stands in pyproject.toml.

`moe` is installed under its name. `experiments` and `configs` are names that others use too: they
go below `moe_experiments`, whose command puts that folder on its own path.
"""

from setuptools import find_packages, setup

ABOVE = "moe_experiments"
BELOW = ("experiments", "configs")

below = find_packages(include=[pattern for name in BELOW for pattern in (name, f"{name}.*")])
setup(
    packages=[
        *find_packages(include=["moe", "moe.*", ABOVE]),
        *(f"{ABOVE}.{name}" for name in below),
    ],
    package_dir={f"{ABOVE}.{name}": name for name in BELOW},
)
