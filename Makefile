# Everything here runs with Go alone, but for golden and golden-verify: tools/gen-golden is Python, with its versions pinned.

.PHONY: check test lint results selftest selftest-classes golden golden-verify ci bench bench-whole bench-peers FORCE

check: ## the reference and the optimized engine on the embedded tiny sets, with every kernel of this machine
	.ci/check

test: # the time limit is that of a machine with other things to do
	go test -timeout 60m ./...

lint:
	test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }
	go vet ./...
	go tool staticcheck ./...

results: ## docs/results.md, docs/results.svg and docs/graph.svg from the commands that they name
	{ printf '# Results\n\nWritten by `make results`: `llavaref check --format markdown`, and `llavaref check --mode accumulated --format svg` for the picture.\nThe local error of the reference is 0 by construction: it is what local errors are measured from.\n\n![drift along the depth of the model](results.svg)\n\n'; \
	  go run ./cmd/llavaref check --format markdown; } > docs/results.md.tmp
	mv docs/results.md.tmp docs/results.md
	go run ./cmd/llavaref check --mode accumulated --format svg --out docs/results.svg
	go run ./cmd/llavaref nodes --format svg > docs/graph.svg

selftest: ## docs/selftest.md from the command that it names
	{ printf '# What the suite catches\n\nWritten by `make selftest`: `llavaref selftest --right --format markdown`. docs/known-bugs.md has the ids. A bug is planted into a right engine, at the\nfirst node where it changes anything; the names that the diagnosis gives come from the same catalogue, so a bug that is not in it has no name. docs/planted.md counts with bugs that share no code with it.\n\nP04 chooses a canvas of another number of tiles, so it shows in the\npixel values; the sums of the tiny models have no tail beyond blocks of 16. In f16 and bf16 the worst error of a right engine is at its limit exactly where a sum of two\nnumbers lies in the middle between two neighbours: half a step, no more.\n\n'; \
	  go run ./cmd/llavaref selftest --right --format markdown; } > docs/selftest.md.tmp || test $$? = 1 # survivors are on the page
	mv docs/selftest.md.tmp docs/selftest.md

selftest-classes: ## docs/selftest-classes.md from the command that it names
	{ printf '# What the suite catches in f16 and bf16\n\nWritten by `make selftest-classes`: `llavaref selftest --class f16,bf16 --format summary`. The matrix is that of docs/selftest.md, bug by bug and prompt by prompt, with\nevery value of the wrong engine rounded to the class, and judged by the limits of the class. A survivor is a bug that is smaller than what storage rounds away: an engine\nof that class with the bug cannot be told from one without. Some bugs change nothing once their values are rounded, and are no trials.\n\n'; \
	  go run ./cmd/llavaref selftest --class f16,bf16 --format summary; } > docs/selftest-classes.md.tmp
	mv docs/selftest-classes.md.tmp docs/selftest-classes.md

golden: ## make the golden sets and all vectors anew: tokenizers first, since the end-to-end checkpoints carry them
	tools/gen-golden/tokenizer_run.sh
	tools/gen-golden/preprocess_run.sh
	tools/gen-golden/run.sh
	tools/gen-golden/run.sh endtoend

golden-verify: ## make them anew in temporary folders and compare; a summary, and exit code 1 where anything differs
	tools/gen-golden/verify.sh

ci:
	.ci/run

# The figures of a machine stand on a page of its own, which is made where it is missing.
MACHINE ?= $(shell tools/machine.sh)
PERFORMANCE = docs/performance/$(MACHINE)

$(PERFORMANCE).md:
	mkdir -p $(PERFORMANCE)
	sed 's/MACHINE/$(MACHINE)/' docs/performance/page.md > $@

bin/llavaref: FORCE
	mkdir -p bin
	go build -o bin/llavaref ./cmd/llavaref

bench: bin/llavaref $(PERFORMANCE).md ## this machine's page and picture: kernels and wide against the machine's limits; wants a quiet machine
	bin/llavaref bench --format json --out $(PERFORMANCE)/wide.json
	bin/llavaref bench show $(PERFORMANCE)/wide.json --format svg --out $(PERFORMANCE)/wide.svg
	bin/llavaref bench show $(PERFORMANCE)/wide.json --format markdown | tools/page-block.sh $(PERFORMANCE).md wide

bench-whole: bin/llavaref $(PERFORMANCE).md ## the same of the whole model of 8.36 billion parameters, in 20 GB of memory
	bin/llavaref bench --model llava-1.6-llama3-8b --synthetic --format json --out $(PERFORMANCE)/whole.json
	bin/llavaref bench show $(PERFORMANCE)/whole.json --format markdown | tools/page-block.sh $(PERFORMANCE).md whole

bench-peers: $(PERFORMANCE).md ## the peers' products and llama.cpp's layers beside ours; needs Python, uv or pip, and cmake
	tools/bench-peers/run.sh products --json $(PERFORMANCE)/peers.json > $(PERFORMANCE)/.peers.md
	tools/page-block.sh $(PERFORMANCE).md peers < $(PERFORMANCE)/.peers.md
	rm $(PERFORMANCE)/.peers.md
	tools/bench-peers/run.sh llama --json $(PERFORMANCE)/llama.json > $(PERFORMANCE)/.llama.md
	tools/page-block.sh $(PERFORMANCE).md llama < $(PERFORMANCE)/.llama.md
	rm $(PERFORMANCE)/.llama.md

FORCE:
