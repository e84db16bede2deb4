package golden

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/llavaref/llavaref/shapes"
)

//go:embed all:data
var embedded embed.FS

// Names lists the sets that the binary carries.
func Names() []string {
	entries, _ := embedded.ReadDir("data") // an embedded folder cannot fail to be read
	var names []string
	for _, e := range entries {
		if _, err := fs.Stat(embedded, "data/"+e.Name()+"/"+manifestFile); err == nil {
			names = append(names, e.Name())
		}
	}
	return names
}

// Embedded opens a set that the binary carries.
func Embedded(name string) (*Set, error) {
	if !slices.Contains(Names(), name) {
		return nil, fmt.Errorf("golden: set %s is not known, want one of %s", quote(name), strings.Join(Names(), ", "))
	}
	sub, err := fs.Sub(embedded, "data/"+name)
	if err != nil {
		return nil, fmt.Errorf("golden: %w", err)
	}
	return OpenFS(sub, name)
}

// Image is a picture that the embedded sets were made from: Case.Images has its name ("images/photo-100x75.png").
func Image(name string) ([]byte, error) {
	if !fs.ValidPath(name) || path.Dir(name) != "images" {
		return nil, fmt.Errorf("golden: image %s, want images/NAME", quote(name))
	}
	data, err := embedded.ReadFile("data/" + name)
	if err != nil {
		return nil, fmt.Errorf("golden: image %s is not known", quote(name))
	}
	return data, nil
}

// Set is a golden set whose manifest and configuration have been read. Its cases are read one by one.
type Set struct {
	Name       string // where it comes from: a folder, or an embedded set's name
	Manifest   Manifest
	Config     shapes.Config
	ConfigJSON []byte // the configuration's own bytes

	fsys  fs.FS
	nodes []shapes.Node
}

// Open opens the set in a folder. Nothing outside of the folder is read, whatever the set says.
func Open(dir string) (*Set, error) {
	root, err := os.OpenRoot(dir) // closed when the Set is collected: its files are opened one at a time
	if err != nil {
		return nil, fmt.Errorf("golden: %s: %w", dir, cause(err))
	}
	return OpenFS(root.FS(), dir)
}

// OpenFS opens the set at the root of a file system; the name is for errors.
// It reads the manifest and the configuration, and holds names and sizes of all files against the manifest.
func OpenFS(fsys fs.FS, name string) (*Set, error) {
	s := &Set{Name: name, fsys: fsys}
	data, err := s.read(manifestFile, maxManifest)
	if err != nil {
		return nil, err
	}
	if s.Manifest, err = parseManifest(data); err != nil {
		return nil, s.errorf(manifestFile, "%w", err)
	}
	if err := s.checkListing(); err != nil {
		return nil, err
	}
	if s.ConfigJSON, err = s.readListed(configFile, maxConfig); err != nil {
		return nil, err
	}
	if s.Config, err = shapes.ParseConfig(s.ConfigJSON); err != nil {
		return nil, s.errorf(configFile, "%w", err)
	}
	s.nodes = shapes.Nodes(s.Config)
	return s, nil
}

// Cases lists the names of the cases, in the set's order.
func (s *Set) Cases() []string { return slices.Clone(s.Manifest.Cases) }

func (s *Set) errorf(file, format string, args ...any) error {
	return fmt.Errorf("golden: %s: %s: %w", s.Name, file, fmt.Errorf(format, args...))
}

// checkListing holds the folders against the manifest: no file missing, none too many, no link, all of their size.
func (s *Set) checkListing() error {
	folders := map[string][]string{".": {manifestFile}}
	for _, p := range sortedKeys(s.Manifest.Files) {
		folders[path.Dir(p)] = append(folders[path.Dir(p)], path.Base(p))
	}
	folders["."] = append(folders["."], s.Manifest.Cases...)
	for _, dir := range sortedKeys(folders) { // "." comes first
		if err := s.checkFolder(dir, folders[dir]); err != nil {
			return err
		}
	}
	return nil
}

func (s *Set) checkFolder(dir string, want []string) error {
	entries, err := s.list(dir, len(want)+1)
	if err != nil {
		return s.errorf(dir, "%w", err)
	}
	have := map[string]fs.DirEntry{}
	for _, e := range entries {
		if have[e.Name()] = e; !slices.Contains(want, e.Name()) {
			return s.errorf(path.Join(dir, e.Name()), "in the folder, but not in the manifest")
		}
	}
	for _, name := range want {
		file := path.Join(dir, name)
		e, ok := have[name]
		if !ok {
			return s.errorf(file, "not in the folder, but in the manifest")
		}
		if dir == "." && slices.Contains(s.Manifest.Cases, name) {
			if !e.IsDir() {
				return s.errorf(file, "%s, want a folder", kindOf(e.Type()))
			}
			continue
		}
		if !e.Type().IsRegular() {
			return s.errorf(file, "%s, want a file", kindOf(e.Type()))
		}
		if listed, ok := s.Manifest.Files[file]; ok { // all but the manifest
			info, err := e.Info()
			if err != nil {
				return s.errorf(file, "%w", cause(err))
			}
			if info.Size() != listed.Bytes {
				return s.errorf(file, "%d bytes, want %d", info.Size(), listed.Bytes)
			}
		}
	}
	return nil
}

// list reads at most n entries of a folder, sorted.
func (s *Set) list(dir string, n int) ([]fs.DirEntry, error) {
	f, err := s.fsys.Open(dir)
	if err != nil {
		return nil, cause(err)
	}
	defer f.Close()
	d, ok := f.(fs.ReadDirFile)
	if !ok {
		return nil, fmt.Errorf("not a folder")
	}
	var entries []fs.DirEntry
	for len(entries) < n {
		some, err := d.ReadDir(n - len(entries))
		entries = append(entries, some...)
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, cause(err)
		}
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, nil
}

// readListed reads a file of at most limit bytes, which the manifest lists, and holds it against the manifest.
func (s *Set) readListed(file string, limit int64) ([]byte, error) {
	want := s.Manifest.Files[file]
	if want.Bytes > limit {
		return nil, s.errorf(file, "%d bytes, want at most %d", want.Bytes, limit)
	}
	data, err := s.read(file, want.Bytes)
	if err != nil {
		return nil, err
	}
	if int64(len(data)) != want.Bytes {
		return nil, s.errorf(file, "%d bytes, want %d", len(data), want.Bytes)
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != want.SHA256 {
		return nil, s.errorf(file, "sha256 %x, want %s", sum, want.SHA256)
	}
	return data, nil
}

// read reads a file of at most limit bytes.
func (s *Set) read(file string, limit int64) ([]byte, error) {
	info, err := fs.Lstat(s.fsys, file) // before it is opened: to open a pipe would wait for its writer
	if err != nil {
		return nil, s.errorf(file, "%w", cause(err))
	}
	if !info.Mode().IsRegular() {
		return nil, s.errorf(file, "%s, want a file", kindOf(info.Mode().Type()))
	}
	f, err := s.fsys.Open(file)
	if err != nil {
		return nil, s.errorf(file, "%w", cause(err))
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return nil, s.errorf(file, "%w", cause(err))
	}
	if info.Size() > limit {
		return nil, s.errorf(file, "%d bytes, want at most %d", info.Size(), limit)
	}
	room := info.Size()
	if _, isFile := f.(*os.File); !isFile {
		room = min(room, 64<<20) // the size may be a claim, such as an archive's: beyond this, memory grows with what comes
	}
	var buf bytes.Buffer
	buf.Grow(int(room) + bytes.MinRead) // then ReadFrom asks for no more than once
	n, err := buf.ReadFrom(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, s.errorf(file, "%w", cause(err))
	}
	if n > limit {
		return nil, s.errorf(file, "more than %d bytes, want at most %d", limit, limit)
	}
	return buf.Bytes(), nil
}

// kindOf names what a directory entry is.
func kindOf(m fs.FileMode) string {
	switch {
	case m.IsRegular():
		return "a file"
	case m.IsDir():
		return "a folder"
	case m&fs.ModeSymlink != 0:
		return "a symbolic link"
	}
	return "neither a file nor a folder"
}

// cause strips an error of the path that the package puts in front itself.
func cause(err error) error {
	if p, ok := err.(*fs.PathError); ok {
		return p.Err
	}
	return err
}

// quote quotes what a file says, shortened.
func quote(s string) string {
	if len(s) > 80 {
		return fmt.Sprintf("%q...", s[:77])
	}
	return fmt.Sprintf("%q", s)
}

// short is a key of a file for a JSON path, shortened.
func short(s string) string {
	if len(s) > 80 {
		return s[:77] + "..."
	}
	return s
}
