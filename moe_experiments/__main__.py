"""The installed command: `moe-experiments` is what `python -m experiments` is in a clone."""

import pathlib
import runpy
import sys

HERE = pathlib.Path(__file__).parent


def folder() -> pathlib.Path:
    """What holds `experiments` and `configs`: this package where it is installed, or the clone."""
    return HERE if (HERE / "experiments").is_dir() else HERE.parent


def main() -> None:
    """Runs the command, and exits as it does; the processes that it starts inherit the path."""
    sys.path.insert(0, str(folder()))
    runpy.run_module("experiments", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
