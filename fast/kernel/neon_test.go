package kernel

import (
	"encoding/binary"
	"fmt"
	"go/constant"
	"go/token"
	"go/types"
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/arch/arm64/arm64asm"
)

// TestEncodings decodes every instruction that neon_arm64.h writes as a number, for all registers and lanes, and compares it
// with the mnemonic beside it. It runs on every architecture.
func TestEncodings(t *testing.T) {
	text, err := os.ReadFile("neon_arm64.h")
	if err != nil {
		t.Fatal(err)
	}
	macro := regexp.MustCompile(`(?m)^#define (\w+)\(([^)]*)\) WORD \$\((.*)\) // (.*)$`)
	found := macro.FindAllStringSubmatch(string(text), -1)
	if want := strings.Count(string(text), "#define"); len(found) != want || want == 0 {
		t.Fatalf("%d macros understood, want all %d", len(found), want)
	}
	for _, f := range found {
		name, params, expr, mnemonic := f[1], strings.Split(f[2], ", "), f[3], f[4]
		t.Run(name, func(t *testing.T) {
			for i := range 32 * 4 {
				args := map[string]int{"d": i % 32, "n": (i*5 + 3) % 32, "m": (i*11 + 7) % 32, "lane": i / 32}
				scope := types.NewPackage("neon", "neon")
				want := mnemonic
				for _, p := range params {
					v, ok := args[p]
					if !ok {
						t.Fatalf("parameter %s, want one of d, n, m, lane", p)
					}
					scope.Scope().Insert(types.NewConst(token.NoPos, scope, p, types.Typ[types.Int], constant.MakeInt64(int64(v))))
					if p == "lane" {
						want = strings.ReplaceAll(want, "[lane]", fmt.Sprintf("[%d]", v))
					} else {
						want = regexp.MustCompile(`\bv`+p+`\b`).ReplaceAllString(want, fmt.Sprintf("v%d", v))
					}
				}
				// Go's assembler and Go agree on the precedence of these operators.
				word, err := types.Eval(token.NewFileSet(), scope, token.NoPos, expr)
				if err != nil {
					t.Fatalf("%s: %v", expr, err)
				}
				n, _ := constant.Int64Val(word.Value)
				inst, err := arm64asm.Decode(binary.LittleEndian.AppendUint32(nil, uint32(n)))
				if err != nil {
					t.Fatalf("%#08x: %v", n, err)
				}
				if got := arm64asm.GNUSyntax(inst); got != want {
					t.Fatalf("%#08x is %q, want %q", n, got, want)
				}
			}
		})
	}
}

// TestConstants holds that the table of vector_arm64.s has the numbers of vector.go, in all four lanes. The generator's own list, from which
// the amd64 table is made as well, is a copy of them. It runs on every architecture.
func TestConstants(t *testing.T) {
	want := map[string]float32{
		"lowest": lowest, "highest": highest, "log2E": log2E, "rounder": rounder, "-ln2High": -ln2High, "-ln2Low": -ln2Low,
		"expC2": expC2, "expC3": expC3, "expC4": expC4, "expC5": expC5, "expC6": expC6,
		"-quickHigh": -quickHigh, "-quickLow": -quickLow, "quickMost": quickMost, "sqrtHalf": sqrtHalf, "erfEdge": erfEdge, "erfMost": erfMost,
		"erfA0": erfA0, "erfA1": erfA1, "erfA2": erfA2, "erfA3": erfA3, "erfA4": erfA4, "erfA5": erfA5,
		"erfB0": erfB0, "erfB1": erfB1, "erfB2": erfB2, "erfB3": erfB3, "erfB4": erfB4, "erfB5": erfB5,
		"1": 1, "1/2": 0.5, "most": math.MaxFloat32, "-Inf": float32(math.Inf(-1)),
		"bias": math.Float32frombits(127), "sign": math.Float32frombits(1 << 31), "magnitude": math.Float32frombits(1<<31 - 1),
		"1 bit": math.Float32frombits(1), "7fff": math.Float32frombits(0x7fff), "quiet": math.Float32frombits(0x40),
	}
	text, err := os.ReadFile("vector_arm64.s")
	if err != nil {
		t.Fatal(err)
	}
	lines := regexp.MustCompile(`(?m)^DATA elementary<>\+(\d+)\(SB\)/4, \$(0x[0-9a-f]{8}) // (.*)$`).FindAllStringSubmatch(string(text), -1)
	if n := strings.Count(string(text), "DATA "); len(lines) != n || n != 4*len(want) {
		t.Fatalf("%d lines of data, %d understood, want four for each of %d constants", n, len(lines), len(want))
	}
	for i, l := range lines {
		bits, err := strconv.ParseUint(l[2], 0, 32)
		if err != nil {
			t.Fatal(err)
		}
		w, ok := want[l[3]]
		if !ok || uint32(bits) != math.Float32bits(w) || l[1] != strconv.Itoa(4*i) || l[3] != lines[i/4*4][3] {
			t.Errorf("%s: want %#x, known %t, at %d, and a constant's four lanes side by side", l[0], math.Float32bits(w), ok, 4*i)
		}
	}
}
