// Package llavaref_test holds what is true of the whole tree: who may import whom, and that what is exported is documented.
package llavaref_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/llavaref/llavaref"

// allowed says which packages of ours each package may import, tests apart. A name ending in /... stands for a package and all below it.
// docs/architecture.md says why.
var allowed = map[string][]string{
	"shapes":                          {},
	"shapes/checkpoint":               {"shapes"},
	"ref/...":                         {"shapes", "ref/..."},
	"fast/...":                        {"shapes", "shapes/checkpoint", "fast/..."},
	"golden":                          {"shapes", "shapes/checkpoint", "golden/npy"},
	"golden/npy":                      {},
	"golden/vectors/endtoend":         {"golden", "shapes"},
	"conformance/compare":             {"shapes"},
	"conformance/replay":              {"shapes", "ref/...", "conformance/compare"},
	"conformance/diagnose":            {"shapes", "ref/...", "conformance", "conformance/compare", "conformance/replay"},
	"conformance":                     {"shapes", "shapes/checkpoint", "golden", "conformance/compare", "conformance/replay"},
	"conformance/report":              {"shapes", "conformance", "conformance/compare"},
	"conformance/blackbox":            {"shapes/...", "golden/...", "conformance", "conformance/compare", "conformance/diagnose"},
	"conformance/selftest":            {"shapes/...", "golden/...", "ref/...", "conformance", "conformance/compare", "conformance/replay", "conformance/diagnose"},
	"conformance/dump":                {"shapes/...", "golden/npy", "conformance", "conformance/compare"},
	"conformance/answers":             {"shapes/...", "golden/...", "ref/...", "conformance", "conformance/compare", "conformance/diagnose"},
	"conformance/export":              {"shapes/...", "golden/..."},
	"conformance/engines":             {"shapes/...", "golden/...", "ref/...", "fast/...", "conformance", "conformance/compare", "conformance/answers", "conformance/dump", "conformance/export"},
	"conformance/cli":                 {"shapes/...", "golden/...", "ref/...", "fast/bench", "fast/profile", "conformance/..."},
	"conformance/internal/enginetest": {"shapes/...", "golden/...", "ref/...", "conformance", "conformance/compare", "conformance/replay"},
	"cmd/llavaref":                    {"conformance/cli"},
}

// testOnly are packages that nothing but tests may import.
var testOnly = []string{"conformance/internal/enginetest"}

// standardOnly are packages that need nothing but Go's standard library.
var standardOnly = []string{"shapes", "ref", "conformance/compare", "conformance/replay", "conformance"}

// matches says whether a package falls under a pattern.
func matches(pkg, pattern string) bool {
	if root, ok := strings.CutSuffix(pattern, "/..."); ok {
		return pkg == root || strings.HasPrefix(pkg, root+"/")
	}
	return pkg == pattern
}

// rule finds the imports that a package may have, the exact rule before one that ends in /...
func rule(pkg string) ([]string, bool) {
	if r, ok := allowed[pkg]; ok {
		return r, true
	}
	for pattern, r := range allowed {
		if matches(pkg, pattern) {
			return r, true
		}
	}
	return nil, false
}

// violation says what is wrong about one import; empty if nothing is.
func violation(pkg, imported string) string {
	own, ours := strings.CutPrefix(imported, module+"/")
	if imported == "C" {
		return "cgo: the project is pure Go"
	}
	if !ours {
		if slices.Contains(standardOnly, pkg) && strings.Contains(strings.SplitN(imported, "/", 2)[0], ".") {
			return "imports " + imported + ", but needs the standard library only"
		}
		return ""
	}
	r, ok := rule(pkg)
	if !ok {
		return "has no rule in policy_test.go: say what it may import, there and in docs/architecture.md"
	}
	if slices.Contains(testOnly, own) {
		return "imports " + own + ", which is for tests"
	}
	for _, pattern := range r {
		if matches(own, pattern) {
			return ""
		}
	}
	return "imports " + own + ", which docs/architecture.md does not allow"
}

// file is one parsed source file of the tree.
type file struct {
	path string // relative to the module's root, with slashes
	pkg  string // package path below the module
	ast  *ast.File
}

// tree parses every Go file of the module. Folders with a go.mod of their own and those that Go leaves out are left out.
func tree(t *testing.T) (*token.FileSet, []file) {
	fset := token.NewFileSet()
	var files []file
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		slashed := filepath.ToSlash(p)
		if d.IsDir() {
			if name := d.Name(); p != "." && (name == "testdata" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		f, err := parser.ParseFile(fset, p, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		files = append(files, file{slashed, path.Dir(slashed), f})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 50 {
		t.Fatalf("found %d Go files, want the whole tree: run the test in the module's root", len(files))
	}
	return fset, files
}

func isTest(f file) bool { return strings.HasSuffix(f.path, "_test.go") }

func TestImportsFollowThePolicy(t *testing.T) {
	_, files := tree(t)
	seen := map[string]bool{}
	for _, f := range files {
		if isTest(f) {
			continue
		}
		seen[f.pkg] = true
		for _, spec := range f.ast.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if v := violation(f.pkg, imported); v != "" {
				t.Errorf("%s: %s", f.path, v)
			}
		}
	}
	for _, pkg := range []string{"shapes", "ref", "golden", "conformance", "conformance/compare", "conformance/cli", "cmd/llavaref"} {
		if !seen[pkg] {
			t.Errorf("package %s was not found", pkg)
		}
	}
}

func TestThePolicyForbids(t *testing.T) {
	for _, c := range []struct{ pkg, imported, want string }{
		{"shapes", module + "/ref", "does not allow"},
		{"shapes", "golang.org/x/sys/cpu", "standard library"},
		{"ref", module + "/fast", "does not allow"},
		{"fast", module + "/ref", "does not allow"},
		{"ref/preprocess", module + "/golden", "does not allow"},
		{"fast/kernel", module + "/conformance/compare", "does not allow"},
		{"conformance", module + "/ref", "does not allow"},
		{"golden", module + "/conformance/compare", "does not allow"},
		{"conformance/report", module + "/golden", "does not allow"},
		{"cmd/llavaref", module + "/conformance", "does not allow"},
		{"conformance/cli", module + "/conformance/internal/enginetest", "for tests"},
		{"attic", module + "/shapes", "no rule"},
		{"ref", "C", "cgo"},
		{"ref", "math", ""},
		{"ref", module + "/shapes", ""},
		{"conformance/engines", module + "/fast/kernel", ""},
	} {
		got := violation(c.pkg, c.imported)
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s imports %s: got %q, want %q", c.pkg, c.imported, got, c.want)
		}
	}
}

func TestWhatIsExportedIsDocumented(t *testing.T) {
	fset, files := tree(t)
	for _, f := range files {
		if isTest(f) {
			continue
		}
		for _, name := range undocumented(f.ast) {
			t.Errorf("%s: %s has no comment", fset.Position(name.Pos()), name.Name)
		}
	}
}

// undocumented lists the exported names of a file that no comment stands beside: none on the declaration, its group or its line.
func undocumented(f *ast.File) []*ast.Ident {
	var out []*ast.Ident
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Doc == nil && d.Name.IsExported() && exportedReceiver(d) {
				out = append(out, d.Name)
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					if s.Name.IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
						out = append(out, s.Name)
					}
				case *ast.ValueSpec:
					if s.Names[0].IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
						out = append(out, s.Names[0])
					}
				}
			}
		}
	}
	return out
}

// exportedReceiver says whether a function is one that other packages can call: no method, or one of an exported type.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	typ := d.Recv.List[0].Type
	for {
		switch t := typ.(type) {
		case *ast.StarExpr:
			typ = t.X
		case *ast.IndexExpr:
			typ = t.X
		case *ast.Ident:
			return t.IsExported()
		default:
			return false
		}
	}
}

func TestUndocumentedIsFound(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "x.go", `package x

func A() {}

// B is documented.
func B() {}

type T struct{}

// U is documented.
type U struct{}

func (T) M() {}
func (u *U) M() {}
func (t t) M() {}

const (
	C = 1
	D = 2 // documented
)

type t struct{}
`, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, name := range undocumented(f) {
		got = append(got, name.Name)
	}
	if want := []string{"A", "T", "M", "M", "C"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
