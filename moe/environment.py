"""What a number was made with: versions, devices, commit."""

import fnmatch
import importlib.metadata
import os
import pathlib
import platform
import subprocess

import moe

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
LIBTPU = "libtpu"  # the compiler for TPUs, where it is installed


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide numbers."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    libtpu = _libtpu()
    own = {LIBTPU: libtpu} if libtpu else {}
    return {"python": platform.python_version(), **found, **own}


def _libtpu() -> str | None:
    try:
        return importlib.metadata.version(LIBTPU)
    except importlib.metadata.PackageNotFoundError:
        return None


def wrong_libtpu() -> str | None:
    """One line where another libtpu is installed than this JAX asks for.

    With it grouped products may do E times the work: XLA's own way of them has changed.
    """
    found = _libtpu()
    asked = [
        requirement.partition(";")[0].strip().removeprefix(f"{LIBTPU}==")
        for requirement in importlib.metadata.requires("jax") or ()
        if requirement.startswith(f"{LIBTPU}==")
    ]
    if found is None or not asked or fnmatch.fnmatchcase(found, asked[0]):
        return None
    version = importlib.metadata.version("jax")
    return (
        f"libtpu {found} is installed, JAX {version} asks for {asked[0]}; "
        f"pip install jax[tpu]=={version}"
    )


def environment(data_fingerprint: str, mesh: str | None) -> dict[str, str | int | None]:
    """Versions, devices, mesh and commit that a result was made with."""
    import jax

    return {
        **versions(),
        "mesh": mesh,
        "processes": jax.process_count(),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "commit": _commit(),
        "data_fingerprint": data_fingerprint,
    }


def _commit() -> str:
    """Of the checkout that this file is in; what a copy says of itself; installed, the version."""
    root = pathlib.Path(__file__).parents[1]
    told = root / "COMMIT"  # beside a copy that `launch` made
    if told.is_file():
        return told.read_text("utf-8").strip() or "unknown"
    if not (root / "pyproject.toml").is_file():
        return f"version {moe.__version__}"
    command = ["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return found.stdout.strip() or "unknown"


def peak_memory() -> int:
    """Peak bytes of the device where it counts them, else of this process."""
    import jax

    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"]
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
