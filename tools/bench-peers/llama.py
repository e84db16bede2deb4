"""Measures whole decoder layers: llama.cpp's llama-bench on a GGUF of wide's shapes, and llavaref's own rows of the same work, and prints one table.

They take turns, one sample each, in another order every round, with the machine's limits measured before and after every sample by llavaref's
process. A sample of llama-bench is a process of its own, which loads the model, warms up by itself and repeats the work.
"""

import argparse
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys

import turns

# Wide's decoder, as make_gguf.py writes it.
LAYERS, WIDTH, MLP, KV, VOCAB = 2, 4096, 14336, 1024, 1024
LAYER = 2 * WIDTH * WIDTH + 2 * KV * WIDTH + 3 * MLP * WIDTH  # weights that are multiplied with: q and o, k and v, gate, up and down

PROMPT, TOKENS, CONTEXTS = 512, 32, (64, 2400)
SEED = 1

# The two types of weights: what llavaref makes of them, and the limit of that arithmetic.
KINDS = {"bf16": ("bf16", "dot"), "f16": ("float32", "fma")}


def attention(past, positions):
    """FLOP of scores and context in one layer: two for each product, and a position sees itself and what comes before it."""
    return 2 * 2 * WIDTH * (positions * past + positions * (positions + 1) / 2)


def ours_flop():
    """A prompt to the logits of its last position by llavaref: of the last layer, all but that position only have keys and values."""
    kv = 2 * KV * WIDTH
    whole = PROMPT * 2 * LAYER + attention(0, PROMPT)
    return (LAYERS - 1) * whole + PROMPT * 2 * kv + 2 * (LAYER - kv) + attention(PROMPT - 1, 1) + 2 * VOCAB * WIDTH


def llama_flop():
    """The same by llama.cpp: of the last layer, all but that position have the attention and no MLP."""
    mlp = 3 * MLP * WIDTH
    return PROMPT * 2 * (LAYERS * LAYER - mlp) + 2 * mlp + LAYERS * attention(0, PROMPT) + 2 * VOCAB * WIDTH


def token_bytes(context, cached):
    """What a token reads: the weights of all layers and of the head, 2 bytes each, and the keys and values of a context, in so many bytes each."""
    return 2 * (LAYERS * LAYER + VOCAB * WIDTH) + LAYERS * context * 2 * KV * cached


class Llama:
    """llama-bench, a process for each sample."""

    def __init__(self, program, home, threads, options):
        self.command = [program, "-t", str(threads), "-o", "json", *options]
        self.home = home

    def run(self, kind, options, repeats):
        command = [*self.command, "-m", f"{self.home}/wide-{kind}.gguf", "-r", str(repeats), *options]
        answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if answer.returncode:
            sys.exit(f"bench-peers: {' '.join(command)} ended with code {answer.returncode}:\n{answer.stderr[-2000:]}")
        (result,) = json.loads(answer.stdout)
        return result, statistics.median(result["samples_ns"]) / 1e9

    def prompt(self, kind):
        return self.run(kind, ["-p", str(PROMPT), "-n", "0", "-b", str(PROMPT), "-ub", str(PROMPT)], 2)

    def tokens(self, kind, context):
        result, seconds = self.run(kind, ["-p", "0", "-n", str(TOKENS), "-d", str(context)], 4)
        return result, seconds / TOKENS


def main():
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument("--llavaref", required=True, help="the program")
    a.add_argument("--llama-bench", required=True, help="the peer's program")
    a.add_argument("--models", required=True, help="the folder with wide-bf16.gguf and wide-f16.gguf")
    a.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    a.add_argument("--rounds", type=int, default=5)
    a.add_argument("--only", help="rows to measure, separated by commas: prefill, decode/context=64, decode/context=2400")
    a.add_argument("--options", default="-fa on", help="options of llama-bench, for all rows")
    a.add_argument("--json", help="where the samples go")
    f = a.parse_args()
    ours = turns.Process("llavaref", [f.llavaref, "bench", "worker", "--threads", str(f.threads)])
    llama = Llama(f.llama_bench, f.models, f.threads, f.options.split())
    order, everything, verdicts, lines, version = random.Random(SEED), [], {}, [], ""
    for kind, (class_, limit) in KINDS.items():
        # name -> llavaref's row, the limit, what each computes or reads, and llama.cpp's sample
        prefill = f"prefill/T={PROMPT}"
        rows = {prefill: (prefill, limit, (ours_flop() / 1e9, llama_flop() / 1e9), lambda kind=kind: llama.prompt(kind))}
        for context in CONTEXTS:
            row, read = f"decode/context={context}", tuple(token_bytes(context, cached) / 1e9 for cached in (4, 2))
            rows[row] = (row, "read", read, lambda context=context: llama.tokens(kind, context))
        for name, (row, limit, amounts, theirs) in rows.items():
            if f.only and not any(name.startswith(o) for o in f.only.split(",")):
                continue
            amounts = dict(zip(("llavaref", "llama.cpp"), amounts))
            same = {"row": row, "type": kind, "class": class_}
            first = ours.ask(**same, warm=0, time=0)  # makes the model
            counted = first["bytes" if limit == "read" else "flop"] / 1e9
            if abs(counted - amounts["llavaref"]) > 1e-9 * counted:
                sys.exit(f"bench-peers: {row}: llavaref counts {counted} GFLOP or GB, this program {amounts['llavaref']}")

            def their_sample():
                nonlocal version
                result, seconds = theirs()
                version = f"{result['build_commit']}, keys and values {result['type_k']}"
                return seconds

            work = {"llavaref": lambda: ours.ask(**same, warm=turns.WARM, time=1)["seconds"], "llama.cpp": their_sample}
            samples = {who: [] for who in work}
            for _ in range(f.rounds):
                turn = list(work)
                order.shuffle(turn)
                for who in turn:
                    samples[who].append(turns.limited(ours, limit, work[who]))
            # Who is ahead is who takes less time: smaller keys and values, and work that is left out, are not held against anybody.
            best = turns.ahead({who: turns.percents(s, amounts["llavaref"]) for who, s in samples.items()})
            cells = []
            for who, s in samples.items():
                cells += [f"{1e3 * statistics.median(x['seconds'] for x in turns.counted(s)):.2f} ms", turns.cell(s, amounts[who])]
            top = statistics.median(x for s in samples.values() for one in s for x in (one["before"], one["after"]))
            lines.append(f"| {name} | {kind} | {top:.0f} {limit} | " + " | ".join(cells) + f" | {turns.verdict(best)} |")
            print(lines[-1], file=sys.stderr)  # it takes minutes
            verdicts[f"{name}, {kind}"] = best
            everything.append({"row": name, "type": kind, "amounts": amounts, "ahead": best, "samples": samples})
    ours.close()
    print(f"{turns.processor()}, {f.threads} threads; prefill in GFLOP/s, decode in GB/s; in brackets the percent of the limit ± half the interquartile range, of {f.rounds} samples\n")
    print(f"- llavaref: {ours.version}\n- llama.cpp: {version}, llama-bench {f.options}\n")
    print("| row | weights | limit | llavaref | | llama.cpp | | ahead |\n|---|---|---|---|---|---|---|---|")
    print("\n".join(lines))
    print("\n" + turns.summary(verdicts))
    if f.json:
        pathlib.Path(f.json).write_text(json.dumps({"processor": turns.processor(), "versions": {"llavaref": ours.version, "llama.cpp": version}, "options": f.options, "rows": everything}, indent=1) + "\n")


if __name__ == "__main__":
    main()
