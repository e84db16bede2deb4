package cli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/llavaref/llavaref/golden"
	"github.com/llavaref/llavaref/golden/npy"
	"github.com/llavaref/llavaref/shapes"
)

// action is what the test reads of action.yml.
type action struct {
	Inputs map[string]struct {
		Description, Default string
		Required             bool
	}
	Outputs map[string]struct{ Description, Value string }
	Runs    struct {
		Using string
		Steps []struct {
			ID, Uses, Shell, Run string
			Env                  map[string]string
			With                 map[string]string
		}
	}
}

func readAction(t *testing.T) action {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "action.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var a action
	if err := yaml.Unmarshal(data, &a); err != nil {
		t.Fatal(err)
	}
	return a
}

func TestTheActionIsComposite(t *testing.T) {
	a := readAction(t)
	if a.Runs.Using != "composite" || len(a.Runs.Steps) != 2 || a.Runs.Steps[1].Shell != "bash" || a.Runs.Steps[1].ID != "check" {
		t.Fatalf("%+v", a.Runs)
	}
	if strings.Contains(a.Runs.Steps[1].Run, "${{") {
		t.Error("an expression stands in the script: an input could end a word and go on as a command")
	}
	used := map[string]bool{}
	for _, value := range a.Runs.Steps[1].Env {
		if m := regexp.MustCompile(`^\$\{\{ inputs\.([a-z-]+) \}\}$`).FindStringSubmatch(value); m != nil {
			used[m[1]] = true
		}
	}
	for name, in := range a.Inputs {
		if !used[name] || in.Description == "" {
			t.Errorf("input %s: described as %q, used: %v", name, in.Description, used[name])
		}
	}
	for name := range used {
		if _, ok := a.Inputs[name]; !ok {
			t.Errorf("input %s is used and not declared", name)
		}
	}
	docs, err := os.ReadFile(filepath.Join("..", "..", "docs", "ci.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(docs, -1) {
		var any map[string]any
		if err := yaml.Unmarshal(block[1], &any); err != nil {
			t.Errorf("docs/ci.md: %v in\n%s", err, block[1])
		}
	}
}

// TestTheActionsScriptRuns runs the script of the action as GitHub's runner does, with its inputs in the environment.
func TestTheActionsScriptRuns(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program")
	}
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Fatalf("the action's shell: %v", err)
	}
	source, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	a := readAction(t)
	work := filepath.Join(t.TempDir(), `a 'b' "c" $(d)`)
	for _, dir := range []string{work, filepath.Join(work, "empty"), filepath.Join(work, "wrong")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	temp := t.TempDir()
	writeZeros(t, filepath.Join(work, "wrong"))
	for _, test := range []struct {
		name   string
		inputs map[string]string
		code   int
		want   map[string]string // a pattern in each file; "" is what it prints
		none   []string
	}{
		{"a right engine", map[string]string{"engine": "ref", "model": "tiny-1.5", "case": "text"}, 0, map[string]string{
			"": `(?m)^::notice title=llavaref::conformant: ref holds as f32 in 1 case of 1 set`, "summary": `\*\*conformant: ref holds`, "output": `^exit-code=0\n$`,
			"llavaref-reports/check.html": "conformant", "llavaref-reports/check.xml": `testsuite name="tiny-1.5/text"`, "llavaref-reports/check.json": `"status": "pass"`,
			"llavaref-reports/badge.json": `partly tested`, "llavaref-reports/levels.json": `"name": "generation"`,
		}, nil},
		{"wrong dumps", map[string]string{"engine": "dir:wrong", "model": "tiny-1.5", "annotate": "src/model.cpp", "reports": "my reports"}, 1, map[string]string{
			"": `(?m)^::error file=src/model.cpp,title=llavaref%3A language_model.model.norm::`, "summary": `\*\*not conformant: `, "output": `^exit-code=1\n$`,
			"my reports/badge.json": `"message": "f32: decoder fails"`,
		}, nil},
		{"no dumps", map[string]string{"engine": "dir:empty", "model": "tiny-1.5"}, 3, map[string]string{"output": `^exit-code=3\n$`}, nil},
		{"an engine that is a command line", map[string]string{"engine": `ref"; touch hacked; "`}, 2, map[string]string{"output": `^exit-code=2\n$`}, []string{"hacked", "summary"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, name := range []string{"output", "summary"} {
				os.Remove(filepath.Join(work, name))
			}
			cmd := exec.CommandContext(t.Context(), bash, "--noprofile", "--norc", "-eo", "pipefail", "-c", a.Runs.Steps[1].Run)
			cmd.Dir = work
			cmd.Env = append(os.Environ(), "RUNNER_TEMP="+temp, "GITHUB_OUTPUT=output", "GITHUB_STEP_SUMMARY=summary", "GOFLAGS=-buildvcs=false")
			for key, value := range a.Runs.Steps[1].Env {
				value = strings.ReplaceAll(value, "${{ github.action_path }}", source)
				for name, in := range a.Inputs {
					given, ok := test.inputs[name]
					if !ok {
						given = in.Default
					}
					value = strings.ReplaceAll(value, fmt.Sprintf("${{ inputs.%s }}", name), given)
				}
				cmd.Env = append(cmd.Env, key+"="+value)
			}
			out, _ := cmd.CombinedOutput()
			if got := cmd.ProcessState.ExitCode(); got != test.code {
				t.Errorf("exit code %d, want %d:\n%s", got, test.code, out)
			}
			for name, pattern := range test.want {
				data := out
				if name != "" {
					var err error
					if data, err = os.ReadFile(filepath.Join(work, name)); err != nil {
						t.Error(err)
						continue
					}
				}
				if !regexp.MustCompile(pattern).Match(data) {
					t.Errorf("%q does not match %q:\n%s", name, pattern, data)
				}
			}
			for _, name := range test.none {
				if _, err := os.Stat(filepath.Join(work, name)); err == nil {
					t.Errorf("there is %s", name)
				}
			}
		})
	}
}

// writeZeros writes a dump of one case in which the last norm gives zeros.
func writeZeros(t *testing.T, dir string) {
	t.Helper()
	set, err := golden.Embedded("tiny-1.5")
	if err != nil {
		t.Fatal(err)
	}
	c, err := set.Case("text")
	if err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(dir, "text")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "manifest.json"), []byte(`{"format": 1, "engine": "zeros", "class": "f32", "lanes": 16}`), 0o644); err != nil {
		t.Fatal(err)
	}
	zeros := shapes.NewTensor(len(c.Inputs.InputIDs), set.Config.Text.HiddenSize)
	if err := npy.WriteFile(filepath.Join(dir, shapes.TextModel+".norm.npy"), zeros.Shape, zeros.Data); err != nil {
		t.Fatal(err)
	}
}
