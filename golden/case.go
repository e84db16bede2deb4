package golden

import (
	"fmt"
	"math"
	"regexp"
	"slices"

	"github.com/llavaref/llavaref/golden/npy"
	"github.com/llavaref/llavaref/shapes"
)

// Case is one prompt with the true value of every node of the graph.
type Case struct {
	Name    string
	Why     string   // what the case is there for, in one sentence
	Catches []string // ids of the known bugs that it is there to catch
	Images  []string // where the pixels came from: in words, or a name for Image

	Inputs shapes.Inputs
	Nodes  []NodeTruth   // in the order of execution
	Logits shapes.Tensor // [T, V], whole

	index map[string]int // of Nodes, by name
}

// Node finds a node by its name.
func (c *Case) Node(name string) (*NodeTruth, bool) {
	i, ok := c.index[name]
	if !ok {
		return nil, false
	}
	return &c.Nodes[i], true
}

// NodeTruth is what a case knows about one node. Its slices share the case's memory.
type NodeTruth struct {
	Name    string
	Shape   []int
	Sample  Sample
	Values  []float32       // the truth at the sample's entries
	RowRMS  []float32       // of each kept row, over its whole length
	Massive []int           // columns with massive activations, ascending: judged apart
	Floors  map[Class]Floor // of every class

	kind   shapes.Kind
	beyond float32 // what stands beyond a query's own position: -Inf in scores, 0 in probs
}

// Floor is the error of the same unmodified model in one dtype class, in units of the truth.
type Floor struct {
	Whole    float64 // over the entries outside of the massive columns
	WorstRow float64 // the largest of any row, massive columns left out
	Massive  float64 // over the massive columns; 0 if there is none
}

// caseJSON is case.json.
type caseJSON struct {
	Name       string     `json:"name"`
	Why        string     `json:"why"`
	Catches    []string   `json:"catches"`
	ImageSizes [][2]int   `json:"image_sizes"`
	Images     []string   `json:"images"`
	Nodes      []nodeJSON `json:"nodes"`
}

type nodeJSON struct {
	Name    string `json:"name"`
	Shape   []int  `json:"shape"`
	Entries int    `json:"entries"`
	Rows    int    `json:"rows"`
	Massive []int  `json:"massive"`
}

// Limits on what a case may ask for.
const (
	maxCaseJSON = 64 << 20
	maxTokens   = 1 << 20
	maxImages   = 1 << 10
	maxPixels   = 1 << 20 // along one side of an image
	maxArray    = 16 << 30
	minHeader   = 10 // of a version 1.0 .npy file
	maxHeader   = 10 + math.MaxUint16
)

// Case reads a case and checks every rule of the format.
func (s *Set) Case(name string) (*Case, error) {
	if !slices.Contains(s.Manifest.Cases, name) {
		return nil, fmt.Errorf("golden: %s: case %s is not known, want one of %v", s.Name, quote(name), s.Manifest.Cases)
	}
	r := caseReader{set: s, dir: name, c: &Case{Name: name, index: map[string]int{}}}
	for _, step := range []func() error{r.about, r.inputs, r.nodes, r.values, r.rowRMS, r.floors, r.logits} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return r.c, nil
}

// caseReader reads one case, file by file: what a file has to hold follows from the files before it.
type caseReader struct {
	set    *Set
	dir    string
	json   caseJSON
	dims   shapes.Dims
	images int
	rows   int // of all nodes
	kept   int // entries of all nodes
	c      *Case
}

func (r *caseReader) errorf(file, format string, args ...any) error {
	return r.set.errorf(r.dir+"/"+file, format, args...)
}

var bugID = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]{0,15}$`)

// about reads case.json, and of it what needs no other file to be judged.
func (r *caseReader) about() error {
	data, err := r.set.readListed(r.dir+"/"+caseFile, maxCaseJSON)
	if err != nil {
		return err
	}
	if err := decodeStrict(data, &r.json); err != nil {
		return r.errorf(caseFile, "%w", err)
	}
	j := &r.json
	switch {
	case j.Name != r.dir:
		return r.errorf(caseFile, "name %s, want the folder's, %q", quote(j.Name), r.dir)
	case j.Why == "":
		return r.errorf(caseFile, "why: empty, want a sentence")
	case len(j.ImageSizes) > maxImages:
		return r.errorf(caseFile, "image_sizes: %d images, want at most %d", len(j.ImageSizes), maxImages)
	case len(j.Images) != len(j.ImageSizes):
		return r.errorf(caseFile, "images: %d, want one for each of %d image_sizes", len(j.Images), len(j.ImageSizes))
	}
	for _, id := range j.Catches {
		if !bugID.MatchString(id) {
			return r.errorf(caseFile, "catches: %s is no id of a bug", quote(id))
		}
	}
	r.c.Why, r.c.Catches, r.c.Images = j.Why, j.Catches, j.Images
	for i, size := range j.ImageSizes {
		if min(size[0], size[1]) < 1 || max(size[0], size[1]) > maxPixels {
			return r.errorf(caseFile, "image_sizes[%d]: %v, want [height, width] of 1 to %d", i, size, maxPixels)
		}
		r.c.Inputs.ImageSizes = append(r.c.Inputs.ImageSizes, shapes.Size{H: size[0], W: size[1]})
	}
	r.images = len(j.ImageSizes)
	return nil
}

// array reads a file of the case that has to hold an array of that dtype and shape.
func (r *caseReader) array(file, dtype string, shape ...int) (*npy.Array, error) {
	bytes := int64(4)
	if dtype == "<i8" {
		bytes = 8
	}
	for _, d := range shape {
		if d > 0 && bytes > math.MaxInt64/int64(d) {
			return nil, r.errorf(file, "shape %v: more than any file holds", shape)
		}
		bytes *= int64(d)
	}
	if have := r.set.Manifest.Files[r.dir+"/"+file].Bytes; have-bytes < minHeader || have-bytes > maxHeader { // before the file is read
		return nil, r.errorf(file, "%d bytes, want a header and %d (shape %v of %s)", have, bytes, shape, dtype)
	}
	a, err := r.readArray(file, dtype)
	if err != nil {
		return nil, err
	}
	if !slices.Equal(a.Shape, shape) {
		return nil, r.errorf(file, "shape %v, want %v", a.Shape, shape)
	}
	return a, nil
}

// readArray reads a file of the case that has to hold an array of that dtype, of whatever shape.
func (r *caseReader) readArray(file, dtype string) (*npy.Array, error) {
	data, err := r.set.readListed(r.dir+"/"+file, maxArray)
	if err != nil {
		return nil, err
	}
	a, err := npy.Parse(r.set.Name+"/"+r.dir+"/"+file, data)
	switch {
	case err != nil:
		return nil, fmt.Errorf("golden: %w", err)
	case a.Version != 1:
		return nil, r.errorf(file, "version %d.0, want 1.0", a.Version)
	case a.Fortran:
		return nil, r.errorf(file, "Fortran order, want C order")
	case a.DType != dtype:
		return nil, r.errorf(file, "dtype %s, want %s", a.DType, dtype)
	}
	return a, nil
}

// inputs reads the ids, the positions and the pixels.
func (r *caseReader) inputs() error {
	cfg, in := r.set.Config, &r.c.Inputs
	if have := r.set.Manifest.Files[r.dir+"/"+inputIDsFile].Bytes; have > 8*maxTokens+maxHeader {
		return r.errorf(inputIDsFile, "%d bytes, want at most %d ids", have, maxTokens)
	}
	a, err := r.readArray(inputIDsFile, "<i8")
	if err != nil {
		return err
	}
	if len(a.Shape) != 1 || a.Len() == 0 || a.Len() > maxTokens {
		return r.errorf(inputIDsFile, "shape %v, want [T] with T of 1 to %d", a.Shape, maxTokens)
	}
	if in.InputIDs, err = r.integers(inputIDsFile, a, cfg.Text.VocabSize); err != nil {
		return err
	}
	if a, err = r.array(positionIDsFile, "<i8", len(in.InputIDs)); err != nil {
		return err
	}
	if in.PositionIDs, err = r.integers(positionIDsFile, a, math.MaxInt32); err != nil {
		return err
	}
	if err := r.pixels(); err != nil {
		return err
	}
	r.dims = shapes.DimsOf(cfg, *in)
	// How many rows an image gives in LLaVA-1.6 is for the model to say; here, that images and image tokens go together.
	want, exact := r.images*cfg.FeaturesPerTile(), cfg.ModelType == shapes.Llava || r.images == 0
	if r.dims.R < want || exact && r.dims.R != want {
		return r.errorf(inputIDsFile, "%d image tokens (id %d), want %d for %d images", r.dims.R, cfg.ImageTokenID, want, r.images)
	}
	return nil
}

// integers gives the values of an array that have to be in [0, limit).
func (r *caseReader) integers(file string, a *npy.Array, limit int) ([]int, error) {
	values, err := a.Int64s()
	if err != nil {
		return nil, fmt.Errorf("golden: %w", err)
	}
	out := make([]int, len(values))
	for i, v := range values {
		if v < 0 || v >= int64(limit) {
			return nil, r.errorf(file, "value %d is %d, want 0 to %d", i, v, limit-1)
		}
		out[i] = int(v)
	}
	return out, nil
}

// pixels reads the tiles, which are there if the case has an image.
func (r *caseReader) pixels() error {
	cfg := r.set.Config
	f, has := r.set.Manifest.Files[r.dir+"/"+pixelFile]
	if has != (r.images > 0) {
		return r.errorf(caseFile, "image_sizes: %d images, want them if and only if there is a %s", r.images, pixelFile)
	}
	if !has {
		return nil
	}
	least, most := r.images, r.images
	if cfg.ModelType == shapes.LlavaNext { // the whole view, and the tiles of a canvas
		least, most = 2*r.images, 0
		for _, p := range cfg.GridPinpoints {
			most = max(most, r.images*(1+p.Area()/(cfg.Vision.ImageSize*cfg.Vision.ImageSize)))
		}
	}
	tile := []int{cfg.Vision.NumChannels, cfg.Vision.ImageSize, cfg.Vision.ImageSize}
	size := 4 * int64(shapes.Product(tile))
	if f.Bytes < int64(least)*size+minHeader || f.Bytes > int64(most)*size+maxHeader {
		return r.errorf(pixelFile, "%d bytes, want a header and %d to %d tiles of %d bytes for %d images", f.Bytes, least, most, size, r.images)
	}
	a, err := r.readArray(pixelFile, "<f4")
	if err != nil {
		return err
	}
	if len(a.Shape) != 4 || a.Shape[0] < least || a.Shape[0] > most || !slices.Equal(a.Shape[1:], tile) {
		return r.errorf(pixelFile, "shape %v, want [N %d %d %d] with N of %d to %d", a.Shape, tile[0], tile[1], tile[2], least, most)
	}
	data, err := r.floats(pixelFile, a)
	if err != nil {
		return err
	}
	r.c.Inputs.PixelValues = shapes.Tensor{Shape: a.Shape, Data: data}
	return nil
}

// floats gives the values of an array that have to be finite.
func (r *caseReader) floats(file string, a *npy.Array) ([]float32, error) {
	values, err := a.Float32s()
	if err != nil {
		return nil, fmt.Errorf("golden: %w", err)
	}
	for i, v := range values {
		if !finite(v) {
			return nil, r.errorf(file, "value %d is %v, want a finite number", i, v)
		}
	}
	return values, nil
}

func finite(v float32) bool { return v-v == 0 }

// nodes holds the list of nodes against the graph of the configuration, with the shapes that the inputs give it.
func (r *caseReader) nodes() error {
	i := 0
	for _, n := range r.set.nodes {
		if !n.Present(r.dims) {
			continue
		}
		if i == len(r.json.Nodes) {
			return r.errorf(caseFile, "nodes: %d, want %s next", i, n.Name)
		}
		if err := r.node(i, n); err != nil {
			return r.errorf(caseFile, "nodes[%d]: %w", i, err)
		}
		i++
	}
	if i < len(r.json.Nodes) {
		return r.errorf(caseFile, "nodes: %d, want %d: %s is not in the graph", len(r.json.Nodes), i, quote(r.json.Nodes[i].Name))
	}
	return nil
}

func (r *caseReader) node(i int, n shapes.Node) error {
	j := r.json.Nodes[i]
	if j.Name != n.Name {
		return fmt.Errorf("name %s, want %q", quote(j.Name), n.Name)
	}
	shape := n.Concrete(r.dims)
	if _, err := countEntries(shape); err != nil {
		return fmt.Errorf("%s: %w", n.Name, err)
	}
	if !slices.Equal(j.Shape, shape) {
		return fmt.Errorf("%s: shape %v, want %v", n.Name, j.Shape, shape)
	}
	s := SampleOf(n, r.dims, r.set.Manifest.Sample)
	if j.Entries != s.Entries() || j.Rows != s.Rows() {
		return fmt.Errorf("%s: %d entries and %d rows, want %d and %d", n.Name, j.Entries, j.Rows, s.Entries(), s.Rows())
	}
	for k, c := range j.Massive {
		if c < 0 || c >= shape[len(shape)-1] || k > 0 && c <= j.Massive[k-1] {
			return fmt.Errorf("%s: massive[%d] is %d, want ascending columns below %d", n.Name, k, c, shape[len(shape)-1])
		}
	}
	r.kept, r.rows = r.kept+s.Entries(), r.rows+s.Rows()
	r.c.index[n.Name] = i
	truth := NodeTruth{Name: n.Name, Shape: shape, Sample: s, Massive: j.Massive, kind: n.Kind}
	if n.Kind == shapes.Scores {
		truth.beyond = float32(math.Inf(-1))
	}
	r.c.Nodes = append(r.c.Nodes, truth)
	return nil
}

// values reads the nodes' true values.
func (r *caseReader) values() error {
	a, err := r.array(valuesFile, "<f4", r.kept)
	if err != nil {
		return err
	}
	values, err := a.Float32s()
	if err != nil {
		return fmt.Errorf("golden: %w", err)
	}
	for i := range r.c.Nodes {
		n := &r.c.Nodes[i]
		k := n.Sample.Entries()
		n.Values, values = values[:k:k], values[k:]
		if err := n.checkValues(); err != nil {
			return r.errorf(valuesFile, "%s: %w", n.Name, err)
		}
	}
	return nil
}

// checkValues holds every value against what it can be: finite, or what stands beyond the query's own position.
func (n *NodeTruth) checkValues() error {
	j := 0
	for row, c := range n.Sample.All() {
		v := n.Values[j]
		j++
		if c >= n.Sample.Width(row) {
			if v != n.beyond {
				return fmt.Errorf("row %d, column %d is %v, want %v beyond the query", row, c, v, n.beyond)
			}
		} else if !finite(v) {
			return fmt.Errorf("row %d, column %d is %v, want a finite number", row, c, v)
		}
	}
	return nil
}

func (r *caseReader) rowRMS() error {
	a, err := r.array(rowRMSFile, "<f4", r.rows)
	if err != nil {
		return err
	}
	values, err := r.floats(rowRMSFile, a)
	if err != nil {
		return err
	}
	for i, v := range values {
		if v < 0 {
			return r.errorf(rowRMSFile, "value %d is %v, want at least 0", i, v)
		}
	}
	for i := range r.c.Nodes {
		n := &r.c.Nodes[i]
		k := n.Sample.Rows()
		n.RowRMS, values = values[:k:k], values[k:]
	}
	return nil
}

func (r *caseReader) floors() error {
	a, err := r.array(floorsFile, "<f4", len(r.c.Nodes), len(Classes()), 3)
	if err != nil {
		return err
	}
	values, err := r.floats(floorsFile, a)
	if err != nil {
		return err
	}
	for i := range r.c.Nodes {
		n := &r.c.Nodes[i]
		n.Floors = make(map[Class]Floor, len(Classes()))
		for _, class := range Classes() {
			f := Floor{float64(values[0]), float64(values[1]), float64(values[2])}
			if min(f.Whole, f.WorstRow, f.Massive) < 0 {
				return r.errorf(floorsFile, "%s: %s: %v, want at least 0", n.Name, class, f)
			}
			n.Floors[class], values = f, values[3:]
		}
	}
	return nil
}

func (r *caseReader) logits() error {
	a, err := r.array(logitsFile, "<f4", r.dims.T, r.set.Config.Text.VocabSize)
	if err != nil {
		return err
	}
	data, err := r.floats(logitsFile, a)
	if err != nil {
		return err
	}
	r.c.Logits = shapes.Tensor{Shape: a.Shape, Data: data}
	return nil
}
