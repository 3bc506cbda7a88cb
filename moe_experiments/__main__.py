"""The installed command: `moe-experiments` is what `python -m experiments` is in a clone."""

import importlib
import pathlib
import sys

HERE = pathlib.Path(__file__).parent


def folder() -> pathlib.Path:
    """What holds `experiments` and `configs`: this package where it is installed, or the clone."""
    return HERE if (HERE / "experiments").is_dir() else HERE.parent


def main() -> None:
    """Runs the command, and exits as it does; the processes that it starts inherit the path."""
    sys.path.insert(0, str(folder()))
    command = importlib.import_module("experiments.__main__")
    called = pathlib.Path(sys.argv[0]).name
    command.start("python -m moe_experiments" if called == "__main__.py" else called)


if __name__ == "__main__":
    main()
