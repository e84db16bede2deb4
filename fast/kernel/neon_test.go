package kernel

import (
	"encoding/binary"
	"fmt"
	"go/constant"
	"go/token"
	"go/types"
	"os"
	"regexp"
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
