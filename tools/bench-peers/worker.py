"""One peer in a process of its own: reads one request a line, as JSON, and answers with the seconds that the work took.

A peer's threads may spin or be pinned; in a process of its own that waits for its next line it takes nothing from the others.
"""

import ctypes
import json
import sys
import time

import numpy as np

COPIES = 512 << 20  # bytes of different weights that one row goes round: decoding reads them from memory, not from a cache


def copies(request, size):
    return max(1, min(64, COPIES // (request["n"] * request["k"] * size))) if request["m"] <= 8 else 1


def values(count, seed):
    """The same kind of values as bench's: multiples of 1/128, exact in every type."""
    return (np.random.default_rng(seed).integers(-64, 64, count, dtype=np.int8).astype(np.float32)) / 128


class Torch:
    """torch as a user calls it, or oneDNN's packed weights through torch."""

    def __init__(self, threads, packed):
        import torch

        self.torch, self.packed = torch, packed
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)

    def version(self):
        return self.torch.__version__

    def product(self, r):
        torch = self.torch
        dtype = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[r["type"]]
        x = torch.from_numpy(values(r["m"] * r["k"], 1).reshape(r["m"], r["k"])).to(dtype)
        w = torch.from_numpy(values(r["n"] * r["k"], 2).reshape(r["n"], r["k"])).to(dtype)
        if self.packed:
            ws = [torch.ops.mkldnn._reorder_linear_weight(w, r["m"]) for _ in range(copies(r, w.element_size()))]
            linear = torch.ops.mkldnn._linear_pointwise
            return lambda i: linear(x, ws[i % len(ws)], None, "none", [], ""), lambda y: y.float().numpy()
        ws = [w.clone() for _ in range(copies(r, w.element_size()))]
        return lambda i: torch.nn.functional.linear(x, ws[i % len(ws)]), lambda y: y.float().numpy()


class OpenBLAS:
    """cblas_sgemm of the wheel that numpy and scipy ship; it finds its kernels by itself."""

    def __init__(self, threads, _):
        import scipy_openblas32 as wheel

        self.wheel = wheel
        self.lib = ctypes.CDLL(wheel.get_lib_dir() + "/libscipy_openblas.so")
        self.lib.scipy_openblas_set_num_threads(threads)

    def version(self):
        config = self.lib.scipy_openblas_get_config
        config.restype = ctypes.c_char_p
        return config().decode()

    def product(self, r):
        if r["type"] != "f32":
            return None
        m, n, k = r["m"], r["n"], r["k"]
        x, w, y = values(m * k, 1), values(n * k, 2), np.zeros((m, n), np.float32)
        ws = [w.copy() for _ in range(copies(r, 4))]
        pointer = lambda a: a.ctypes.data_as(ctypes.c_void_p)
        one, zero = ctypes.c_float(1), ctypes.c_float(0)
        row_major, plain, transposed = 101, 111, 112

        def run(i):
            self.lib.scipy_cblas_sgemm(row_major, plain, transposed, m, n, k, one, pointer(x), k, pointer(ws[i % len(ws)]), k, zero, pointer(y), n)
            return y

        return run, lambda y: y


def main():
    peer, threads = sys.argv[1], int(sys.argv[2])
    kind = {"torch": lambda: Torch(threads, False), "onednn": lambda: Torch(threads, True), "openblas": lambda: OpenBLAS(threads, None)}[peer]()
    print(json.dumps({"version": kind.version()}), flush=True)
    held, made = None, None
    for line in sys.stdin:
        r = json.loads(line)
        key = (r["m"], r["n"], r["k"], r["type"])
        if key != held:
            held, made, at = key, None, 0
            try:
                made = kind.product(r)
            except RuntimeError as e:  # oneDNN has no float16 on this processor
                print(f"{peer}: {r['type']}: {e}", file=sys.stderr)
            if made:
                run, numbers = made
                y = numbers(run(0))
                x, w = values(r["m"] * r["k"], 1).reshape(r["m"], r["k"]), values(r["n"] * r["k"], 2).reshape(r["n"], r["k"])
                for i, j in ((0, 0), (r["m"] - 1, r["n"] - 1)):  # the work that is timed is done
                    want, scale = float(x[i].astype(np.float64) @ w[j]), float(np.abs(x[i]).astype(np.float64) @ np.abs(w[j]))
                    if not abs(float(y[i, j]) - want) <= scale * 2.0**-7:
                        sys.exit(f"{peer}: y[{i}, {j}] is {y[i, j]}, want {want}")
        if not made:
            print(json.dumps({"seconds": 0}), flush=True)
            continue
        for seconds in (r["warm"], r["time"]):  # the first is not counted
            begin, passes = time.perf_counter(), 0
            while passes == 0 or time.perf_counter() - begin < seconds:
                run(at)
                at, passes = at + 1, passes + 1
            took = time.perf_counter() - begin
        print(json.dumps({"seconds": took / passes}), flush=True)


if __name__ == "__main__":
    main()
