#!/usr/bin/env bash
# Builds llama.cpp from the sources in llama-cpp-python's sdist, and the adapter with it. Eight minutes on one core.
#
#   build.sh FOLDER      FOLDER/adapter is the result
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
version=0.3.36
folder=$(mkdir -p "$1" && cd "$1" && pwd)
src=$folder/llama_cpp_python-$version/vendor/llama.cpp
if [ ! -d "$src" ]; then
	(cd "$folder" && python3 -m pip download --quiet --no-deps --no-binary :all: "llama-cpp-python==$version" && tar xzf "llama_cpp_python-$version.tar.gz")
fi
build=${LLAMACPP_BUILD:-$folder/build}
if [ ! -e "$build/build.ninja" ]; then
	cmake -S "$src" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF
fi
nice ninja -C "$build" -j "${JOBS:-1}" llama mtmd
c++ -std=c++17 -O1 -Wall -o "$folder/adapter" "$here/adapter.cpp" -I "$src/include" -I "$src/ggml/include" -I "$src/tools/mtmd" -I "$src/tools/mtmd/debug" \
	-L "$build/bin" -Wl,-rpath,"$build/bin" -lmtmd -lllama -lggml -lggml-base
