package dump

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/shapes"
)

// ManifestFile is the name of the manifest in a dump.
const ManifestFile = "manifest.json"

// Format is the version of the format that is written and read.
const Format = 1

// Manifest is what a dump says about itself; docs/dump-format.md has its keys.
type Manifest struct {
	Format    int               `json:"format"` // 1
	Engine    string            `json:"engine"`
	Version   string            `json:"version,omitempty"`
	Class     string            `json:"class"` // f32, f16 or bf16: how activations are stored
	Lanes     int               `json:"lanes,omitempty"`
	Classes   []NodeClass       `json:"classes,omitempty"`    // of nodes that are stored otherwise; the first that fits counts
	Naming    string            `json:"naming,omitempty"`     // whose names the arrays have; empty is hf
	AxisOrder string            `json:"axis_order,omitempty"` // RowMajor or NE; empty is RowMajor
	Batch     bool              `json:"batch,omitempty"`      // arrays of the language model that Naming names have a batch axis of 1 in front
	Map       []Rule            `json:"map,omitempty"`
	Set       string            `json:"set,omitempty"` // golden set
	Case      string            `json:"case,omitempty"`
	Nodes     []Node            `json:"nodes,omitempty"` // in the order in which they were computed
	About     map[string]string `json:"about,omitempty"`
}

// Node is one array of a dump.
type Node struct {
	Name  string `json:"name"`
	Shape []int  `json:"shape"`
}

// NodeClass is the class of the nodes that a pattern fits.
type NodeClass struct {
	Nodes string `json:"nodes"` // an on-disk name; * stands for any characters, {i} for a number
	Class string `json:"class"`
}

// The ways to write a shape down.
const (
	RowMajor = "row-major" // the last axis is the fastest, as numpy shows it
	NE       = "ne"        // the first axis is the fastest, as ggml shows it
)

// Rule says where the values of a node lie.
type Rule struct {
	Node      Names    `json:"node"` // on-disk names; {i} stands for a number. Several lie side by side on the array's last axis
	Tensor    string   `json:"tensor,omitempty"`
	Sum       []string `json:"sum,omitempty"`        // arrays that are to be added up, instead of Tensor
	Axes      string   `json:"axes,omitempty"`       // the array's axes in the letters of the node; empty is the node's own
	AxisOrder string   `json:"axis_order,omitempty"` // of the array's shape; empty is the manifest's
	Join      string   `json:"join,omitempty"`       // axis along which the node lies in several arrays; {part} in the name counts them
	Padded    string   `json:"padded,omitempty"`     // axis that may be longer than the node's
	From      int      `json:"from,omitempty"`       // where on the padded axis the node begins
	Scale     *Scale   `json:"scale,omitempty"`      // the array times this is the node
	Rows      string   `json:"rows,omitempty"`       // "last": the array has the last positions of the logits only
}

// Names is one name or a list of names.
type Names []string

// UnmarshalJSON reads a string or an array of strings.
func (n *Names) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		*n = make(Names, 1)
		return json.Unmarshal(data, &(*n)[0])
	}
	var list []string
	if err := json.Unmarshal(data, &list); err != nil {
		return fmt.Errorf("node: want a name or a list of names")
	}
	*n = list
	return nil
}

// MarshalJSON writes a single name as a string.
func (n Names) MarshalJSON() ([]byte, error) {
	if len(n) == 1 {
		return json.Marshal(n[0])
	}
	return json.Marshal([]string(n))
}

// Scale is a factor: a number, or the scale of attention scores.
type Scale struct {
	Number float64
	Root   bool // 1/sqrt(Dh)
}

// rootScale is how the scale of attention scores is written.
const rootScale = "1/sqrt(Dh)"

// UnmarshalJSON reads a number or "1/sqrt(Dh)".
func (s *Scale) UnmarshalJSON(data []byte) error {
	if string(data) == strconv.Quote(rootScale) {
		s.Root = true
		return nil
	}
	err := json.Unmarshal(data, &s.Number)
	if err != nil || s.Number == 0 {
		return fmt.Errorf("scale %s, want a number that is not 0, or %q", data, rootScale)
	}
	return nil
}

// MarshalJSON writes what UnmarshalJSON reads.
func (s Scale) MarshalJSON() ([]byte, error) {
	if s.Root {
		return json.Marshal(rootScale)
	}
	return json.Marshal(s.Number)
}

// ParseManifest reads a manifest. Unknown and repeated keys are errors, and so is a missing class, since nothing can be judged without it.
func ParseManifest(data []byte) (Manifest, error) {
	var m Manifest
	if err := strict(data, &m); err != nil {
		return m, err
	}
	return m, m.check()
}

// checkKeys refuses repeated keys, of which encoding/json would take the last, and anything behind the object.
func checkKeys(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	type level struct {
		object bool
		key    bool // a key comes next
		seen   map[string]bool
	}
	var stack []level
	value := func() {
		if n := len(stack); n > 0 && stack[n-1].object {
			stack[n-1].key = true
		}
	}
	for {
		token, err := dec.Token()
		if err == io.EOF {
			if len(stack) > 0 {
				return io.ErrUnexpectedEOF
			}
			return nil
		}
		if err != nil {
			return err
		}
		switch d := token.(type) {
		case json.Delim:
			switch d {
			case '{', '[':
				if len(stack) > 100 {
					return fmt.Errorf("nested more than 100 deep")
				}
				stack = append(stack, level{d == '{', d == '{', map[string]bool{}})
			default:
				stack = stack[:len(stack)-1]
				if value(); len(stack) == 0 {
					if _, err := dec.Token(); err != io.EOF {
						return fmt.Errorf("more data after the JSON object")
					}
					return nil
				}
			}
			continue
		case string:
			if n := len(stack); n > 0 && stack[n-1].key {
				if stack[n-1].seen[d] {
					return fmt.Errorf("key %s twice", quote(d))
				}
				stack[n-1].seen[d], stack[n-1].key = true, false
				continue
			}
		}
		if len(stack) == 0 {
			return fmt.Errorf("want a JSON object")
		}
		value()
	}
}

// check holds the values against what they may be.
func (m *Manifest) check() error {
	if m.Format != Format {
		return fmt.Errorf("format %d, want %d", m.Format, Format)
	}
	if m.Engine == "" {
		return fmt.Errorf(`no engine, want its name: "engine": "my-engine"`)
	}
	if m.Class == "" {
		return fmt.Errorf(`no class, so nothing can be judged. Say how the engine stores activations between operations: "class": "f32", "f16" or "bf16"`)
	}
	if _, err := compare.ParseClass(m.Class); err != nil {
		return fmt.Errorf("class %s, want f32, f16 or bf16", quote(m.Class))
	}
	if m.Lanes < 0 || m.Lanes > 1<<20 {
		return fmt.Errorf("lanes %d, want how many partial sums a kernel keeps, 1 or more", m.Lanes)
	}
	if m.Naming == "" {
		m.Naming = string(shapes.OnDisk)
	}
	if !known(m.Naming) {
		return fmt.Errorf("naming %s, want one of %s", quote(m.Naming), strings.Join(Namings(), ", "))
	}
	for _, o := range append([]Rule{{AxisOrder: m.AxisOrder}}, m.Map...) {
		if o.AxisOrder != "" && o.AxisOrder != RowMajor && o.AxisOrder != NE {
			return fmt.Errorf("axis_order %s, want %s or %s", quote(o.AxisOrder), RowMajor, NE)
		}
	}
	for i, c := range m.Classes {
		if _, err := compare.ParseClass(c.Class); err != nil || c.Nodes == "" {
			return fmt.Errorf(`classes[%d]: nodes %s, class %s, want a pattern of node names and f32, f16 or bf16`, i, quote(c.Nodes), quote(c.Class))
		}
	}
	for i, r := range m.Map {
		if err := r.check(); err != nil {
			return fmt.Errorf("map[%d]: %w", i, err)
		}
	}
	return nil
}

func (r Rule) check() error {
	if len(r.Node) == 0 || r.Node[0] == "" {
		return fmt.Errorf("no node, want the on-disk name of one (llavaref nodes)")
	}
	if (r.Tensor == "") == (len(r.Sum) == 0) {
		return fmt.Errorf("%s: want either a tensor or a sum", quote(r.Node[0]))
	}
	if len(r.Sum) == 1 || len(r.Sum) > 8 {
		return fmt.Errorf("%s: a sum of %d arrays, want 2 to 8", quote(r.Node[0]), len(r.Sum))
	}
	for _, name := range r.tensors() {
		if joined := strings.Contains(name, partMark); joined != (r.Join != "") {
			return fmt.Errorf("%s: %s and join %s, want {part} in the name where, and only where, arrays are joined", quote(r.Node[0]), quote(name), quote(r.Join))
		}
	}
	if r.From != 0 && r.Padded == "" {
		return fmt.Errorf("%s: from without padded, want the axis that it counts on", quote(r.Node[0]))
	}
	if r.From < 0 {
		return fmt.Errorf("%s: from %d, want 0 or more", quote(r.Node[0]), r.From)
	}
	if r.Rows != "" && (r.Rows != "last" || len(r.Node) > 1 || r.Node[0] != shapes.LMHead) {
		return fmt.Errorf("%s: rows %s, want last, for %s alone", quote(r.Node[0]), quote(r.Rows), shapes.LMHead)
	}
	if r.Rows != "" && r.Join != "" {
		return fmt.Errorf("%s: rows and join exclude each other", quote(r.Node[0]))
	}
	return nil
}

// tensors are the names of the rule's arrays, {i} and {part} not yet filled in.
func (r Rule) tensors() []string {
	if r.Tensor != "" {
		return []string{r.Tensor}
	}
	return r.Sum
}

// partMark stands in a name for the number of one of several arrays.
const partMark = "{part}"

var indexMark = regexp.MustCompile(`\{i([+-]\d{1,3})?\}`)

// fill puts the number of a layer into the name of an array; false if it would be negative.
func fill(name string, i int) (string, bool) {
	ok := true
	name = indexMark.ReplaceAllStringFunc(name, func(mark string) string {
		off, _ := strconv.Atoi(mark[2 : len(mark)-1])
		ok = ok && i+off >= 0
		return strconv.Itoa(i + off)
	})
	return name, ok
}

// pattern matches names of nodes.
type pattern struct {
	exact string // of a pattern that fits one name only
	re    *regexp.Regexp
}

// newPattern compiles a pattern in which {i} stands for a number and, if stars are allowed, * for any characters.
func newPattern(text string, stars bool) pattern {
	if !strings.Contains(text, "{i}") && !(stars && strings.Contains(text, "*")) {
		return pattern{exact: text}
	}
	s := strings.ReplaceAll(regexp.QuoteMeta(text), `\{i\}`, `([0-9]{1,9})`)
	if stars {
		s = strings.ReplaceAll(s, `\*`, `.*`)
	}
	return pattern{re: regexp.MustCompile(`^` + s + `$`)}
}

// match says whether a name fits, and what stands in the place of the first {i}; each further one must be the same number.
func (p pattern) match(name string) (i int, ok bool) {
	if p.re == nil {
		return 0, p.exact == name
	}
	m := p.re.FindStringSubmatch(name)
	if m == nil {
		return 0, false
	}
	for k, digits := range m[1:] {
		n, err := strconv.Atoi(digits)
		if err != nil || k > 0 && n != i {
			return 0, false
		}
		i = n
	}
	return i, true
}

// quote quotes what a file says, shortened.
func quote(s string) string {
	if len(s) > 80 {
		return strconv.Quote(s[:77]) + "..."
	}
	return strconv.Quote(s)
}
