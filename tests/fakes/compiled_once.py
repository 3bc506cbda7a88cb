"""Programs that one process of a test compiled, for those after it."""


def settings(directory):
    """The environment in which JAX keeps compiled programs in a folder, and takes them from it."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(directory),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
