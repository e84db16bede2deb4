#!/usr/bin/env bash
# Makes the vectors of the tokenizers, golden/vectors/tokenizer, each file with the version of transformers that made the committed one.
# uv installs the versions into its cache; torch is not needed.
#
#   tokenizer_run.sh            all vectors anew, in place, with the vocabularies that are there
#   tokenizer_run.sh --verify   all of them anew in a temporary folder, compared with the committed ones, and what other versions
#                               make otherwise is counted
#   tokenizer_run.sh train      the small vocabularies anew; the library breaks ties between rare characters at random, so they may
#                               come out with two of them exchanged, and all that is made with them then changes
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
vectors=$here/../../golden/vectors/tokenizer
layouts=(4.39.3:0.15.2:1.26.4 4.42.4:0.19.1:1.26.4 4.44.2:0.19.1:2.4.6 4.47.1:0.21.4:1.26.4 4.51.3:0.21.4:1.26.4 4.57.6:0.22.2:2.4.6 5.23.0:0.23.3:2.4.6) # transformers, tokenizers, numpy

version() { # version TRANSFORMERS SCRIPT ARG...
	local v
	for v in "${layouts[@]}"; do
		IFS=: read -r transformers tokenizers numpy <<<"$v"
		if [ "$transformers" = "$1" ]; then
			uv run --quiet --no-project --python 3.11 --with "transformers==$transformers" --with "tokenizers==$tokenizers" --with "numpy==$numpy" \
				--with pillow==12.1.1 --with jinja2==3.1.6 --with babel==2.18.0 "$here/$2" "${@:3}"
			return
		fi
	done
	echo "tokenizer_run.sh: no environment for transformers $1" >&2
	return 1
}

# plain FOLDER: a list of its files, and the random templates without the addresses of Python's objects
plain() {
	(cd "$1" && find . -type f ! -name README.md ! -name '*.go' ! -name random.json.gz -exec sha256sum {} + | sort -k 2 && gzip -dc random.json.gz | sed 's/ at 0x[0-9a-f]*>/ at 0x>/g')
}

make() { # make FOLDER, which has the vocabularies
	version 4.57.6 tokenizer_vectors.py "$1"
	version 4.57.6 tokenizer_prompts.py "$1"
	version 4.57.6 tokenizer_template_fuzz.py "$1/random.json.gz" --count 1500 --seed 3
	for v in "${layouts[@]}"; do
		version "${v%%:*}" tokenizer_layouts.py "$1"
	done
}

case "${1-}" in
'')
	make "$vectors"
	;;
--verify)
	new=$(mktemp -d)
	trap 'rm -rf "$new"' EXIT
	cp -r "$vectors/llama3" "$vectors/llama2" "$vectors/tiny.json" "$new"
	make "$new"
	version 4.44.2 tokenizer_vectors.py "$vectors" --check
	version 5.23.0 tokenizer_vectors.py "$vectors" --check
	version 4.44.2 tokenizer_prompts.py "$vectors" --check
	version 5.23.0 tokenizer_prompts.py "$vectors" --check
	diff <(plain "$vectors") <(plain "$new") && echo "tokenizer vectors: no difference"
	;;
train)
	version 5.23.0 tokenizer_train.py "$vectors"
	;;
*)
	sed -n 's/^# \{0,1\}//p' "${BASH_SOURCE[0]}" | sed 1d >&2
	exit 2
	;;
esac
