package checkpoint

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/llavaref/llavaref/shapes"
)

// Report is a checkpoint held against a model's inventory. All names are those of the checkpoint's own scheme.
type Report struct {
	Scheme     shapes.Scheme // the scheme under which most names fit; empty if none does
	Missing    []string      // parameters that are in no file
	Unexpected []string      // tensors that are neither parameter nor buffer
	WrongShape []WrongShape
	WrongDType []Info        // parameters that cannot be read as float32
	Ignored    []string      // buffers, which are computed and not read: position_ids, inv_freq
	DTypes     []DTypeCount  // what the parameters are stored as, most values first. Several dtypes are no fault: norms are often kept in F32
	Shards     []ShardReport // the files, by name
	Tensors    int           // parameters found, of any shape
	Parameters int           // their values
	Bytes      int64         // of their values in the files
	IndexSize  int64         // the index's total_size; -1 if it has none. Not held against Bytes: writers differ in what they count
}

// WrongShape is a parameter whose shape is not the inventory's.
type WrongShape struct {
	Info
	Want []int
}

// DTypeCount is how many parameters are stored as one dtype.
type DTypeCount struct {
	DType   DType
	Tensors int
	Values  int
	Bytes   int64
}

// ShardReport is one file of a checkpoint.
type ShardReport struct {
	Name    string
	Tensors int // of any kind
	Bytes   int64
}

// Verify holds the checkpoint against a model's inventory, from the headers alone.
func (c *Checkpoint) Verify(cfg shapes.Config) Report {
	r, _ := c.match(cfg)
	return r
}

// match is Verify with the names that Bind needs: on-disk name of a parameter -> tensor of the checkpoint.
func (c *Checkpoint) match(cfg shapes.Config) (Report, map[string]Info) {
	names := make([]string, len(c.tensors))
	for i, t := range c.tensors {
		names[i] = t.Name
	}
	slices.Sort(names)
	m := shapes.MatchNames(cfg, names)
	r := Report{Scheme: m.Scheme, Missing: m.Missing, Unexpected: m.Unexpected, Ignored: m.Buffers, IndexSize: c.IndexSize}
	if len(m.Disk) == 0 {
		r.Scheme = ""
	}
	inFile := map[string]string{} // on-disk name -> name as found
	for name, disk := range m.Disk {
		inFile[disk] = name
	}
	found, dtypes := map[string]Info{}, map[DType]DTypeCount{}
	for _, p := range shapes.Params(cfg) {
		name, ok := inFile[p.Name]
		if !ok {
			continue
		}
		t, _ := c.Tensor(name)
		found[p.Name] = t
		if !slices.Equal(t.Shape, p.Shape) {
			r.WrongShape = append(r.WrongShape, WrongShape{t, p.Shape})
		}
		if !t.DType.Readable() {
			r.WrongDType = append(r.WrongDType, t)
		}
		r.Tensors++
		r.Parameters += t.Count()
		r.Bytes += t.End - t.Begin
		n := dtypes[t.DType]
		dtypes[t.DType] = DTypeCount{t.DType, n.Tensors + 1, n.Values + t.Count(), n.Bytes + t.End - t.Begin}
	}
	for _, n := range dtypes {
		r.DTypes = append(r.DTypes, n)
	}
	slices.SortFunc(r.DTypes, func(a, b DTypeCount) int {
		return cmp.Or(cmp.Compare(b.Values, a.Values), cmp.Compare(a.DType, b.DType))
	})
	for _, f := range c.files {
		var bytes int64
		for _, t := range f.tensors {
			bytes += t.End - t.Begin
		}
		r.Shards = append(r.Shards, ShardReport{f.name, len(f.tensors), bytes})
	}
	return r, found
}

// Err is nil if every parameter is there once, with the inventory's shape and a dtype that can be read, and nothing else is
// but buffers. Else it names the first few faults of each kind, one a line, and counts the rest.
func (r Report) Err() error {
	var faults []error
	add := func(kind string, n int, fault func(i int) string) {
		const most = 5
		for i := range min(n, most) {
			faults = append(faults, errors.New("checkpoint: "+fault(i)))
		}
		if n > most {
			faults = append(faults, fmt.Errorf("checkpoint: and %d more %s", n-most, kind))
		}
	}
	if r.Scheme == "" {
		faults = append(faults, errors.New("checkpoint: no tensor has the name of a parameter, under any naming scheme"))
	}
	add("of another shape", len(r.WrongShape), func(i int) string {
		t := r.WrongShape[i]
		return fmt.Sprintf("%s: %s: shape %v, want %v", t.File, show(t.Name), t.Shape, t.Want)
	})
	add("of another dtype", len(r.WrongDType), func(i int) string {
		t := r.WrongDType[i]
		return fmt.Sprintf("%s: %s: dtype %s, want F32, F16 or BF16", t.File, show(t.Name), t.DType)
	})
	add("are missing", len(r.Missing), func(i int) string { return r.Missing[i] + ": is missing" })
	add("are no parameters of the model", len(r.Unexpected), func(i int) string {
		return show(r.Unexpected[i]) + ": is no parameter of the model"
	})
	return errors.Join(faults...)
}

// Weights are the parameters of one model in an open checkpoint, by on-disk name whatever the files call them.
// It implements shapes.Weights; its methods may be called concurrently until the checkpoint is closed.
type Weights struct {
	c     *Checkpoint
	found map[string]Info // on-disk name -> tensor as in the file
}

var _ shapes.Weights = (*Weights)(nil)

// Bind finds the model's parameters in the checkpoint. It is an error, that of Report.Err, if the two do not fit.
func (c *Checkpoint) Bind(cfg shapes.Config) (*Weights, error) {
	r, found := c.match(cfg)
	if err := r.Err(); err != nil {
		return nil, err
	}
	return &Weights{c, found}, nil
}

// Read is Checkpoint.Read by on-disk name.
func (w *Weights) Read(name string, from int, dst []float32) error {
	t, err := w.Info(name)
	if err != nil {
		return err
	}
	return w.c.Read(t.Name, from, dst)
}

// ReadRaw is Checkpoint.ReadRaw by on-disk name.
func (w *Weights) ReadRaw(name string, from int, dst []byte) error {
	t, err := w.Info(name)
	if err != nil {
		return err
	}
	return w.c.ReadRaw(t.Name, from, dst)
}

// Info is what the files say of a parameter, by on-disk name.
func (w *Weights) Info(name string) (Info, error) {
	t, ok := w.found[name]
	if !ok {
		return t, fmt.Errorf("checkpoint: %s: %s: the model has no such parameter", w.c.path, show(name))
	}
	return t, nil
}
