#!/usr/bin/env bash
# Makes the vectors of preprocessing, golden/vectors/preprocess, or with --verify compares the committed ones with what every
# witness makes. The versions stand in the scripts' own headings; uv installs them into its cache.
#
#   preprocess_run.sh            all vectors anew, in place
#   preprocess_run.sh --verify   nothing is written; every line says how many rows are different
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
vectors=$here/../../golden/vectors/preprocess
decode() { uv run --quiet "${@:2}" "$here/preprocess_decode.py" "$1" "$vectors/decode.json"; }
pixels() { uv run --quiet "${@:3}" "$here/preprocess_pixels.py" --variant "$1" "$2" "$vectors"; }
torchvision=(--with torch==2.15.0 --with torchvision==0.29.2)

case "${1-}" in
'')
	decode --out
	uv run --quiet "$here/preprocess_geometry.py" --out "$vectors"
	mode=--out
	;;
--verify)
	decode --verify
	decode --verify --with pillow==12.2.0
	decode --verify --with pillow==13.0.0
	decode --verify --with transformers==4.57.6 --with pillow==11.3.0
	pixels pillow --verify --with transformers==4.57.6 --with pillow==11.3.0
	mode=--verify
	;;
*)
	sed -n 's/^# \{0,1\}//p' "${BASH_SOURCE[0]}" | sed 1d >&2
	exit 2
	;;
esac
pixels pillow $mode
pixels pillow-12.2 $mode --with pillow==12.2.0
pixels pillow-13 $mode --with pillow==13.0.0
pixels torchvision $mode "${torchvision[@]}"
if [ $mode = --out ]; then
	uv run --quiet --with transformers==4.51.3 --with 'numpy<2' "$here/preprocess_pixels.py" --older --out "$vectors"
fi
