#!/usr/bin/env bash
# Makes the golden sets. Makes the two Python environments first where they are missing (5 GB each, once), in $LLAVAREF_VENV.
#
#   run.sh              all committed sets anew, in place
#   run.sh --verify     all committed sets anew in a temporary folder, compared with the committed ones
#   run.sh endtoend     the checkpoints of golden/vectors/endtoend and their answers anew, in place; with --verify compared
#   run.sh test         the generator's own tests
#   run.sh scatter SET  how far unmodified models lie from the floors of a committed set
#   run.sh ARG...       gen_golden.py ARG...: one set, or one of a checkpoint of your own (README.md)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
data=$here/../../golden/data
export OPENBLAS_NUM_THREADS=1 # a busy machine starves the numpy witness where it waits for a second thread
export LLAVAREF_VENV=${LLAVAREF_VENV:-$HOME/.cache/llavaref}

environment() { # environment VERSION: makes $LLAVAREF_VENV/VERSION from its lock file
	local folder=$LLAVAREF_VENV/$1 lock=$here/requirements-$1.lock
	[ -e "$folder/complete" ] && cmp -s "$lock" "$folder/complete" && return
	echo "making $folder"
	mkdir -p "$LLAVAREF_VENV"
	if command -v uv >/dev/null; then
		uv venv --quiet --clear --python 3.11 "$folder"
		uv pip install --quiet --require-hashes --python "$folder/bin/python" -r "$lock"
	else
		python3.11 -m venv --clear "$folder"
		"$folder/bin/python" -m pip install --quiet --require-hashes -r "$lock"
	fi
	cp "$lock" "$folder/complete" # last, so that an interrupted installation is made anew
}

# threads: wide's sums are long enough to be worth a second core
generate() { "$LLAVAREF_VENV/5.23/bin/python" "$here/gen_golden.py" "$@"; }
threads() { [ "$1" = wide ] && echo 2 || echo 1; }

environment 4.51
environment 5.23

case "${1-}" in
'')
	for model in tiny-1.6 tiny-1.5 wide; do
		new=$(mktemp -d) # the old set stays until the new one is whole
		generate --model "$model" --threads "$(threads "$model")" --out "$new/$model"
		rm -rf "${data:?}/$model"
		mv "$new/$model" "$data/$model"
		rmdir "$new"
	done
	;;
--verify)
	[ $# -eq 1 ] || { echo "run.sh: --verify stands alone; for one set: --model NAME --verify SET" >&2; exit 2; }
	status=0
	for model in tiny-1.6 tiny-1.5 wide; do
		generate --model "$model" --threads "$(threads "$model")" --verify "$data/$model" || status=1
	done
	exit $status
	;;
endtoend)
	[ $# -eq 1 ] && set -- endtoend --make
	exec "$LLAVAREF_VENV/5.23/bin/python" "$here/endtoend.py" "${2#--}" "$here/../../golden/vectors/endtoend"
	;;
test)
	cd "$here" && exec "$LLAVAREF_VENV/5.23/bin/python" -m unittest "${@:2}"
	;;
scatter)
	exec "$LLAVAREF_VENV/5.23/bin/python" "$here/scatter.py" "${@:2}"
	;;
*)
	generate "$@"
	;;
esac
