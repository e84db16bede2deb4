#!/usr/bin/env bash
# Builds llama.cpp from the source package of llama-cpp-python, once, in $LLAVAREF_VENV/llama-VERSION (eight minutes of a processor), writes a GGUF of
# wide's decoder for each type of weights there, and runs llama.py with its arguments. JOBS=1 sets how many compilers run.
# Called by run.sh llama, which sets PYTHON and LLAVAREF.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
version=0.3.36
sha256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
home=${LLAVAREF_VENV:-$HOME/.cache/llavaref}/llama-$version
mkdir -p "$home"

if [ ! -x "$home/llama-bench" ]; then
	if [ ! -e "$home/source/complete" ]; then
		[ -e "$home/llama_cpp_python-$version.tar.gz" ] || python3 -m pip download --quiet --no-deps --no-binary llama-cpp-python --dest "$home" "llama-cpp-python==$version"
		echo "$sha256  $home/llama_cpp_python-$version.tar.gz" | sha256sum --check --quiet
		rm -rf "$home/source"
		mkdir -p "$home/source"
		tar -xzf "$home/llama_cpp_python-$version.tar.gz" -C "$home/source" --strip-components 1
		touch "$home/source/complete" # last, so that an interrupted one is unpacked anew
	fi
	echo "building llama.cpp, $home/build.log" >&2
	{
		cmake -S "$home/source/vendor/llama.cpp" -B "$home/build" -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DBUILD_SHARED_LIBS=OFF \
			-DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_TOOLS=ON &&
			nice cmake --build "$home/build" --target llama-bench -j "${JOBS:-1}"
	} >"$home/build.log" 2>&1 || { tail -20 "$home/build.log" >&2; exit 1; }
	cp "$home/build/bin/llama-bench" "$home/llama-bench.tmp" && mv "$home/llama-bench.tmp" "$home/llama-bench"
fi

for kind in bf16 f16; do
	model=$home/wide-$kind.gguf
	[ -e "$model" ] || { "$PYTHON" "$here/make_gguf.py" "$model.tmp" "$kind" && mv "$model.tmp" "$model"; }
done
"$PYTHON" "$here/llama.py" --llavaref "$LLAVAREF" --llama-bench "$home/llama-bench" --models "$home" "$@"
