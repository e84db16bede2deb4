package golden

import (
	"encoding/hex"
	"fmt"
	"math"
	"regexp"
	"slices"
)

// Format is the version of the golden format that this package reads.
const Format = 1

// Class is a dtype class that a noise floor is measured in.
type Class string

// The classes, in the order of the floors.
const (
	F32  Class = "f32"
	F16  Class = "f16"
	BF16 Class = "bf16"
)

// Classes lists the classes in the order of the floors.
func Classes() []Class { return []Class{F32, F16, BF16} }

// Kinds of weights.
const (
	Synthetic  = "synthetic"  // made by a counter from names and a seed
	Checkpoint = "checkpoint" // a real one, which the set does not carry
)

// Manifest says what made a set, from which weights, and what every other file has to be.
type Manifest struct {
	Format    int               `json:"format"`
	Model     string            `json:"model"`     // the set's name
	Weights   Weights           `json:"weights"`   //
	Sample    int               `json:"sample"`    // entries kept of a larger node; 0 keeps everything
	Classes   []Class           `json:"classes"`   //
	Generator map[string]string `json:"generator"` // versions
	Witnesses []Witness         `json:"witnesses"` //
	Cases     []string          `json:"cases"`     // folders, in order
	Files     map[string]File   `json:"files"`     // by path relative to the set: every file but the manifest
}

// Weights says which weights the truth was computed with.
type Weights struct {
	Kind   string  `json:"kind"`           // Synthetic or Checkpoint
	Seed   *uint64 `json:"seed,omitempty"` // of synthetic ones
	SHA256 string  `json:"sha256"`         // checkpoint.Digest
}

// Witness is one implementation that computed the set's nodes.
type Witness struct {
	Transformers  string  `json:"transformers"` // its version, or what stood in for it
	Torch         string  `json:"torch"`
	MaxDifference float64 `json:"max_difference"` // the largest from the first witness, over the rms of the node
}

// File is what a file has to be.
type File struct {
	SHA256 string `json:"sha256"`
	Bytes  int64  `json:"bytes"`
}

// Limits on what a manifest may ask for, far above any set's.
const (
	maxManifest = 16 << 20
	maxConfig   = 1 << 20
	maxCases    = 1 << 10
)

// caseName is what a case's folder may be called on every system.
var caseName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

// Files of a set and of its cases.
const (
	manifestFile    = "manifest.json"
	configFile      = "config.json"
	caseFile        = "case.json"
	pixelFile       = "pixel_values.npy"
	inputIDsFile    = "input_ids.npy"
	positionIDsFile = "position_ids.npy"
	valuesFile      = "values.npy"
	rowRMSFile      = "row_rms.npy"
	floorsFile      = "floors.npy"
	logitsFile      = "logits.npy"
)

// caseFiles are the files that every case has; pixelFile is there if it has an image.
var caseFiles = []string{caseFile, inputIDsFile, positionIDsFile, valuesFile, rowRMSFile, floorsFile, logitsFile}

func parseManifest(data []byte) (Manifest, error) {
	var m Manifest
	if err := decodeStrict(data, &m); err != nil {
		return m, err
	}
	return m, m.validate()
}

// validate checks all that a manifest has to be by itself.
func (m Manifest) validate() error {
	switch {
	case m.Format != Format:
		return fmt.Errorf("format %d, want %d", m.Format, Format)
	case m.Model == "":
		return fmt.Errorf("model %q, want a name", m.Model)
	case m.Sample < 0 || m.Sample > maxBudget:
		return fmt.Errorf("sample %d, want 0 to %d", m.Sample, maxBudget)
	case !slices.Equal(m.Classes, Classes()):
		return fmt.Errorf("classes %q, want %q", m.Classes, Classes())
	case len(m.Cases) == 0 || len(m.Cases) > maxCases:
		return fmt.Errorf("%d cases, want 1 to %d", len(m.Cases), maxCases)
	}
	if err := m.Weights.validate(); err != nil {
		return fmt.Errorf("weights: %w", err)
	}
	for i, w := range m.Witnesses {
		if !(w.MaxDifference >= 0) || math.IsInf(w.MaxDifference, 0) {
			return fmt.Errorf("witnesses[%d]: max_difference %v, want a number of at least 0", i, w.MaxDifference)
		}
	}
	return m.validateFiles()
}

// validateFiles holds the list of files against the one that the cases imply: no other path can be in it, so none leads outside.
func (m Manifest) validateFiles() error {
	known := map[string]bool{configFile: true}
	for i, name := range m.Cases {
		if !caseName.MatchString(name) || name == configFile || name == manifestFile {
			return fmt.Errorf("cases: %s, want letters, digits and ._- (at most 100)", quote(name))
		}
		if slices.Contains(m.Cases[:i], name) {
			return fmt.Errorf("cases: %q twice", name)
		}
		for _, f := range caseFiles {
			known[name+"/"+f] = true
		}
	}
	for _, path := range sortedKeys(known) {
		if _, ok := m.Files[path]; !ok {
			return fmt.Errorf("files: %s is not listed", path)
		}
	}
	for _, name := range m.Cases {
		known[name+"/"+pixelFile] = true
	}
	for _, path := range sortedKeys(m.Files) {
		if !known[path] {
			return fmt.Errorf("files: %s is no file of a set", quote(path))
		}
		f := m.Files[path]
		if err := validDigest(f.SHA256); err != nil {
			return fmt.Errorf("files: %s: %w", path, err)
		}
		if f.Bytes < 1 {
			return fmt.Errorf("files: %s: %d bytes, want at least 1", path, f.Bytes)
		}
	}
	return nil
}

func (w Weights) validate() error {
	switch {
	case w.Kind != Synthetic && w.Kind != Checkpoint:
		return fmt.Errorf("kind %s, want %q or %q", quote(w.Kind), Synthetic, Checkpoint)
	case w.Kind == Synthetic && w.Seed == nil:
		return fmt.Errorf("no seed, want that of the synthetic weights")
	case w.Kind == Checkpoint && w.Seed != nil:
		return fmt.Errorf("seed %d of a checkpoint, want none", *w.Seed)
	}
	return validDigest(w.SHA256)
}

func validDigest(s string) error {
	if b, err := hex.DecodeString(s); err != nil || len(b) != 32 || hex.EncodeToString(b) != s {
		return fmt.Errorf("sha256 %s, want 64 hexadecimal digits in lower case", quote(s))
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
