"""Writes the arrays of this folder with numpy, for the reader's tests: python make.py (numpy 2.4.6)."""

from pathlib import Path

import numpy as np
from numpy.lib import format

here = Path(__file__).parent


def write(name, array, version=None):
    with open(here / f"{name}.npy", "wb") as f:
        format.write_array(f, array, version=version)


count = np.arange(24).reshape(2, 3, 4)
for dtype in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"):
    write(dtype, (count - (12 if dtype[0] != "u" else 0)).astype(dtype))
write("b1", count % 3 == 0)
write("v1", count.astype("f4"), (1, 0))
write("v2", count.astype("f4"), (2, 0))
write("v3", count.astype("f4"), (3, 0))
write("scalar", np.array(7.5, dtype="f4"))
write("one", np.array([7.5], dtype="f4"))
write("empty", np.zeros((0,), dtype="f4"))
write("empty-2d", np.zeros((3, 0), dtype="f4"))
write("fortran", np.asfortranarray(count.astype("f4")))
write("fortran-2d", np.asfortranarray(count.reshape(4, 6).astype("i8")))
write("special-f2", np.array([0x0000, 0x8000, 0x0001, 0x03FF, 0x7BFF, 0x7C00, 0xFC00, 0x3555], dtype="u2").view("f2"))

# refused
write("big-endian", count.astype(">f4"))
write("structured", np.zeros(3, dtype=[("a", "<f4"), ("b", "<i4")]))
write("object", np.array([1, None], dtype=object))
write("strings", np.array(["a", "bc"]))
write("bytes", np.array([b"a", b"bc"]))
write("complex", count.astype("c8"))
write("void", np.zeros(3, dtype="V2"))
write("dates", np.zeros(3, dtype="M8[s]"))
