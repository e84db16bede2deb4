#!/usr/bin/env bash
# Builds llama.cpp from the source package of llama-cpp-python, once, in $LLAVAREF_VENV/llama-VERSION (eight minutes of a processor), and measures
# whole decoder layers: llama-bench on a GGUF of wide's shapes, and llavaref's own rows of the same work before and after it.
# JOBS=1 sets how many compilers run. Called by run.sh llama, which sets PYTHON and LLAVAREF.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
version=0.3.36
sha256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
home=${LLAVAREF_VENV:-$HOME/.cache/llavaref}/llama-$version
mkdir -p "$home"

if [ ! -x "$home/llama-bench" ]; then
	if [ ! -e "$home/source/vendor/llama.cpp/CMakeLists.txt" ]; then
		[ -e "$home/llama_cpp_python-$version.tar.gz" ] || python3 -m pip download --quiet --no-deps --no-binary llama-cpp-python --dest "$home" "llama-cpp-python==$version"
		echo "$sha256  $home/llama_cpp_python-$version.tar.gz" | sha256sum --check --quiet
		mkdir -p "$home/source"
		tar -xzf "$home/llama_cpp_python-$version.tar.gz" -C "$home/source" --strip-components 1
	fi
	cmake -S "$home/source/vendor/llama.cpp" -B "$home/build" -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DBUILD_SHARED_LIBS=OFF \
		-DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_TOOLS=ON >"$home/cmake.log"
	nice cmake --build "$home/build" --target llama-bench -j "${JOBS:-1}" >"$home/build.log"
	cp "$home/build/bin/llama-bench" "$home/llama-bench"
fi

threads=$(nproc)
rows='prefill/T=512/class=bf16,decode/context=64/class=bf16'
"$LLAVAREF" bench --rows "$rows"
for kind in bf16 f16; do
	model=$home/wide-$kind.gguf
	[ -e "$model" ] || { "$PYTHON" "$here/make_gguf.py" "$model.tmp" "$kind" && mv "$model.tmp" "$model"; }
	"$home/llama-bench" -m "$model" -t "$threads" -p 512 -n 32 -b 512 -ub 512 -r 5 -o json >"$home/$kind.json"
done
"$PYTHON" - "$home" <<'PYTHON'
import json, sys

# Two layers of Llama-3-8B and a head of 1024: 2 FLOP a weight and position, attention besides; and the bytes of the weights that a token reads.
layer = 2 * 4096 * 4096 + 2 * 1024 * 4096 + 3 * 14336 * 4096
print("\n| llama.cpp | prefill of 512, GFLOP/s | decode, GB/s of weights |\n|---|---|---|")
for kind in ("bf16", "f16"):
    runs = json.load(open(f"{sys.argv[1]}/{kind}.json"))
    pp = next(r["avg_ts"] for r in runs if r["n_prompt"])
    tg = next(r["avg_ts"] for r in runs if r["n_gen"])
    flop = 2 * (2 * layer + 2 * 2 * 4096 * 513 / 2)  # scores and context over 256.5 positions in the mean, in each of two layers
    print(f"| {kind} | {pp * flop / 1e9:.0f} | {tg * 2 * (2 * layer + 1024 * 4096) / 1e9:.1f} |")
PYTHON
"$LLAVAREF" bench --rows "$rows"
