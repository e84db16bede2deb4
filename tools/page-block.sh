#!/usr/bin/env bash
# page-block.sh PAGE NAME: puts the standard input between the lines "<!-- begin NAME -->" and "<!-- end NAME -->" of a page, in the place of
# what stood there. The page is replaced when the whole of it is written; an input of nothing changes nothing.
set -euo pipefail

page=$1 name=$2
grep -qx "<!-- begin $name -->" "$page" && grep -qx "<!-- end $name -->" "$page" || { echo "page-block.sh: $page has no block $name" >&2; exit 1; }
content=$(mktemp)
new=$(mktemp "$(dirname "$page")/.block.XXXXXX")
trap 'rm -f "$content" "$new"' EXIT
cat >"$content"
test -s "$content" || { echo "page-block.sh: nothing came for block $name" >&2; exit 1; }
awk -v begin="<!-- begin $name -->" -v end="<!-- end $name -->" -v content="$content" '
	$0 == end { inside = 0 }
	!inside { print }
	$0 == begin { inside = 1; print ""; while ((getline line < content) > 0) print line; print "" }
' "$page" >"$new"
chmod 644 "$new"
mv "$new" "$page"
