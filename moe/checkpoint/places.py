"""The place that a path names: a folder, or a bucket."""

import os

from moe.checkpoint.folder import Folder

SCHEME = "gs://"


def at(path: str | os.PathLike):
    """The `Folder` of a path, or the `moe.checkpoint.bucket.Bucket` of gs://BUCKET/PATH.

    Raises Mistake, one line, where a bucket needs a package that is not installed.
    """
    if not str(path).startswith(SCHEME):
        return Folder(path)
    from moe.checkpoint.bucket import Bucket

    return Bucket(str(path))
