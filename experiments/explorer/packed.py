"""Arrays of numbers as text: the smallest unsigned integers that hold them, in base64."""

import base64
from typing import Any

import numpy as np

MISSING = 65535  # the code of a number that there is not


def whole(values: np.ndarray) -> dict[str, Any]:
    """Whole numbers from 0 on: {"type": "u8", "u16" or "u32", "data": base64, little-endian}."""
    array = np.ascontiguousarray(values).reshape(-1)
    top = int(array.max(initial=0))
    bits = 8 if top < 2**8 else 16 if top < 2**16 else 32
    return {"type": f"u{bits}", "data": _text(array.astype(f"<u{bits // 8}"))}


def real(values: np.ndarray, levels: int = MISSING - 1) -> dict[str, Any]:
    """Numbers as codes of 0 to `levels`: number = zero + step * code.

    One that is not finite has the highest code of its type, and is read as NaN.
    """
    array = np.asarray(values, np.float64).reshape(-1)
    known = np.isfinite(array)
    low = float(array[known].min(initial=np.inf)) if known.any() else 0.0
    high = float(array[known].max(initial=-np.inf)) if known.any() else 0.0
    step = (high - low) / levels or 1.0
    bits = 8 if levels < 2**8 else 16
    code = np.full(array.shape, 2**bits - 1)
    code[known] = np.round((array[known] - low) / step)
    packed = {"type": f"u{bits}", "data": _text(code.astype(f"<u{bits // 8}"))}
    return packed | {"zero": low, "step": step}


def flags(values: np.ndarray) -> dict[str, Any]:
    """Booleans, eight in a byte, the first in its lowest bit."""
    bits = np.packbits(np.asarray(values, bool).reshape(-1), bitorder="little")
    return {"type": "bits", "data": _text(bits)}


def _text(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()
