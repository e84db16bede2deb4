#!/usr/bin/env bash
# Prints two tables: llavaref's products and its peers', and whole decoder layers beside llama.cpp's, with the percent of the machine's limit, all in
# turns in one run. Makes the Python environment and llama.cpp first where they are missing, in $LLAVAREF_VENV, and builds llavaref and the gonum peer.
#
#   run.sh                                                          both
#   run.sh products [--only 1,8,64] [--rounds 7] [--json FILE]      products: torch, oneDNN with packed weights, OpenBLAS, gonum
#   run.sh products --ways torch                                    a peer beside itself, in other ways to use memory and threads
#   run.sh llama [--rounds 5] [--json FILE]                         whole layers: llama.cpp's llama-bench
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv=${LLAVAREF_VENV:-$HOME/.cache/llavaref}/peers
lock=$here/requirements.lock

if ! { [ -e "$venv/complete" ] && cmp -s "$lock" "$venv/complete"; }; then
	echo "making $venv" >&2
	mkdir -p "$(dirname "$venv")"
	if command -v uv >/dev/null; then
		uv venv --quiet --clear --python 3.11 "$venv"
		uv pip install --quiet --require-hashes --python "$venv/bin/python" -r "$lock"
	else
		python3.11 -m venv --clear "$venv"
		"$venv/bin/python" -m pip install --quiet --require-hashes -r "$lock"
	fi
	cp "$lock" "$venv/complete" # last, so that an interrupted installation is made anew
fi

build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
(cd "$here/../.." && go build -o "$build/llavaref" ./cmd/llavaref)
(cd "$here/gonum" && go build -o "$build/gonum" .)
products() { "$venv/bin/python" "$here/peers.py" --llavaref "$build/llavaref" --gonum "$build/gonum" "$@"; }
llama() { LLAVAREF=$build/llavaref PYTHON=$venv/bin/python "$here/llama.sh" "$@"; }
case ${1-} in
products | llama) "$@" ;;
"") products && echo && llama ;;
*) echo "run.sh: $1: want products or llama, and their options" >&2 && exit 2 ;;
esac
