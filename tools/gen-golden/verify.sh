#!/usr/bin/env bash
# verify.sh: makes everything in golden/ anew in temporary folders and compares it with what is committed. One line a part at the end, and exit code 1
# if any part differs or could not be made: a part that fails does not keep the others from being looked at.
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
status=0
summary=()
part() { # part NAME COMMAND...
	local name=$1 begin=$SECONDS code=0
	shift
	echo "== $name" >&2
	"$@" || code=$?
	[ $code -eq 0 ] && result='the same' || { result="DIFFERS (code $code)"; status=1; }
	summary+=("$(printf '%-14s %-20s %5d s' "$name" "$result" $((SECONDS - begin)))")
}

part tokenizer "$here/tokenizer_run.sh" --verify
part preprocess "$here/preprocess_run.sh" --verify
part sets "$here/run.sh" --verify
part endtoend "$here/run.sh" endtoend --verify
printf '%s\n' "${summary[@]}"
exit $status
