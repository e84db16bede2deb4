package fast

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/llavaref/llavaref/fast/kernel"
	"github.com/llavaref/llavaref/shapes"
)

// digestEnv makes the test below print a digest and end.
const digestEnv = "LLAVAREF_TEST_DIGEST"

// In the float32 class every implementation of the kernels gives the same bits at every node. An implementation is chosen when a program starts, so
// the test runs itself once for each.
func TestImplementationsGiveTheSameBits(t *testing.T) {
	if os.Getenv(digestEnv) != "" {
		c := small(t, "tiny-1.6")
		h := sha256.New()
		forward(t, model(t, c, Options{Threads: 2}), prompt(t, c, portrait), func(node string, v shapes.Tensor) {
			fmt.Fprintln(h, node)
			if err := binary.Write(h, binary.LittleEndian, v.Data); err != nil {
				t.Fatal(err)
			}
		})
		fmt.Printf("digest %s %x\n", kernel.Active(), h.Sum(nil))
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	digests := map[string]string{}
	var off []string
	for _, i := range kernel.Implementations() {
		if i.Enabled {
			cmd := exec.Command(self, "-test.run=^TestImplementationsGiveTheSameBits$")
			cmd.Env = append(os.Environ(), digestEnv+"=1", "LLAVAREF_DISABLE="+strings.Join(off, ","))
			out, err := cmd.CombinedOutput()
			if errors.Is(err, syscall.ENOEXEC) {
				t.Skip("an emulated program cannot start itself")
			}
			_, line, ok := strings.Cut(string(out), "digest ")
			name, digest, _ := strings.Cut(strings.SplitN(line, "\n", 2)[0], " ")
			if err != nil || !ok || name != i.Name {
				t.Fatalf("%s: %v, %s", i.Name, err, out)
			}
			digests[name] = digest
		}
		off = append(off, i.Name)
	}
	for name, d := range digests {
		if d != digests["generic"] {
			t.Errorf("%s: %s, generic %s", name, d, digests["generic"])
		}
	}
	t.Logf("%d implementations", len(digests))
}
