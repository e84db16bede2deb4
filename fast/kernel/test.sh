#!/bin/sh
# Runs the tests of this package in all the ways it is built and dispatched: each implementation of this processor, required by
# name in LLAVAREF_TEST_REQUIRE (a list, may be empty; by default what Linux says that the processor has); plain Go alone; NEON under
# qemu, which must be installed; and the generator, which must write the assembly that is in the repository.
set -eu
cd "$(dirname "$0")"

if [ -z "${LLAVAREF_TEST_REQUIRE+set}" ] && [ -r /proc/cpuinfo ]; then
	flags=" $(sed -n 's/^flags[^:]*: *//p' /proc/cpuinfo | head -n 1) "
	has() { for flag; do case $flags in *" $flag "*) ;; *) return 1 ;; esac done; }
	names=
	has avx2 fma f16c && names=$names,avx2
	has avx512f avx512bw avx512dq avx512vl avx2 fma f16c && names=$names,avx512
	has avx512f avx512bw avx512dq avx512vl avx2 fma f16c avx512_bf16 && names=$names,avx512bf16
	export LLAVAREF_TEST_REQUIRE="$names"
fi

go vet .
GOARCH=arm64 go vet .
go vet -tags purego .
(cd _asm && go vet . && go test .)

go test .
go test -race -short .
LLAVAREF_TEST_REQUIRE= go test -short -tags purego .
for off in avx512bf16 avx512 avx512,avx2; do
	LLAVAREF_TEST_REQUIRE= LLAVAREF_DISABLE=$off go test -count=1 -short . # the cache of go test does not know the variable
done

if command -v qemu-aarch64-static >/dev/null; then
	GOARCH=arm64 LLAVAREF_TEST_REQUIRE=neon go test -short -exec qemu-aarch64-static .
else
	echo "test.sh: qemu-aarch64-static is not installed: NEON cannot be tested" >&2
	exit 1
fi
