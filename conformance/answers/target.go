package answers

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/llavaref/llavaref/golden/vectors/endtoend"
	"github.com/llavaref/llavaref/ref/preprocess"
	"github.com/llavaref/llavaref/ref/tokenizer"
	"github.com/llavaref/llavaref/shapes"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

// Target is an end-to-end set that can be asked: its checkpoint as a folder, and opened.
type Target struct {
	Set       *endtoend.Set
	Dir       string // the checkpoint's folder, as transformers saved it; nobody may write to it
	Config    shapes.Config
	Weights   shapes.Weights
	Stored    []shapes.Param // the checkpoint's tensors under the names of its files, in their shapes
	Words     *tokenizer.Tokenizer
	Processor preprocess.Processor
	Digest    string // fingerprint of the weights
}

// Open writes a set's checkpoint into a temporary folder and opens it. The caller calls close when the target is no longer needed.
func Open(name string) (t *Target, close func() error, err error) {
	set, err := endtoend.Open(name)
	if err != nil {
		return nil, nil, err
	}
	dir, err := os.MkdirTemp("", "llavaref-endtoend-*")
	if err != nil {
		return nil, nil, err
	}
	var files *checkpoint.Checkpoint
	close = func() error {
		var err error
		if files != nil {
			err = files.Close()
		}
		return errors.Join(err, os.RemoveAll(dir))
	}
	t = &Target{Set: set, Dir: filepath.Join(dir, name)}
	if err = set.WriteCheckpoint(t.Dir); err == nil {
		files, err = checkpoint.Open(t.Dir)
	}
	if err == nil {
		err = t.open(files)
	}
	if err != nil {
		close()
		return nil, nil, fmt.Errorf("answers: set %s: %w", name, err)
	}
	return t, close, nil
}

func (t *Target) open(files *checkpoint.Checkpoint) error {
	text, err := os.ReadFile(filepath.Join(t.Dir, "config.json"))
	if err != nil {
		return err
	}
	if t.Config, err = shapes.ParseConfig(text); err != nil {
		return err
	}
	if t.Weights, err = files.Bind(t.Config); err != nil {
		return err
	}
	for _, x := range files.Tensors() {
		t.Stored = append(t.Stored, shapes.Param{Name: x.Name, Shape: x.Shape})
	}
	if t.Words, err = tokenizer.Load(t.Dir); err != nil {
		return err
	}
	if t.Processor.Config, err = preprocess.ReadConfig(t.Dir); err != nil {
		return err
	}
	t.Digest, err = checkpoint.Digest(t.Config, t.Weights, nil)
	return err
}

// Inputs is what transformers gives the model for a conversation. Of its pixels the SHA-256 is known, so package ref makes them anew; pixels with
// another one are an error.
func (t *Target) Inputs(c endtoend.Case) (shapes.Inputs, error) {
	in := shapes.Inputs{ImageSizes: c.ImageSizes(), InputIDs: c.InputIDs()}
	for i := range in.InputIDs {
		in.PositionIDs = append(in.PositionIDs, i)
	}
	if len(c.Images) == 0 {
		return in, nil
	}
	images, err := pictures(c)
	if err != nil {
		return in, err
	}
	in.PixelValues, err = pixels(images, func(m preprocess.Image) (shapes.Tensor, error) {
		y, _, err := t.Processor.Image(m)
		return y, err
	})
	if err != nil {
		return in, err
	}
	h := sha256.New()
	if err := binary.Write(h, binary.LittleEndian, in.PixelValues.Data); err != nil {
		return in, err
	}
	if have := hex.EncodeToString(h.Sum(nil)); in.PixelValues.Shape[0] != c.Tiles || have != c.PixelsSHA256 {
		return in, fmt.Errorf("the pixels to compare with are not those of transformers: %d tiles of sha256 %s, want %d of %s", in.PixelValues.Shape[0], have, c.Tiles, c.PixelsSHA256)
	}
	return in, nil
}

// pictures decodes the images of a case.
func pictures(c endtoend.Case) ([]preprocess.Image, error) {
	var out []preprocess.Image
	for _, name := range c.Images {
		data, err := endtoend.Image(name)
		if err != nil {
			return nil, err
		}
		p, err := preprocess.DecodeImage(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out = append(out, p.Image)
	}
	return out, nil
}

// pixels joins what is made of each image.
//
// -> [N, 3, px, px], the tiles of all images in order
func pixels(images []preprocess.Image, of func(preprocess.Image) (shapes.Tensor, error)) (shapes.Tensor, error) {
	var out shapes.Tensor
	for _, m := range images {
		y, err := of(m)
		if err != nil {
			return out, err
		}
		if out.Shape == nil {
			out.Shape = append([]int{0}, y.Shape[1:]...)
		}
		out.Shape[0] += y.Shape[0]
		out.Data = append(out.Data, y.Data...)
	}
	return out, nil
}

// An Engine answers the conversations of one set. If it is an io.Closer, it is closed behind the last of them.
type Engine interface {
	// Answer is what the engine makes of a case; only says that no other case is asked. If it has nothing for the case, the error is a
	// conformance.NotRun.
	Answer(ctx context.Context, c endtoend.Case, only bool) (Answer, error)
}

// Opener makes an engine of a set.
type Opener func(t *Target) (Engine, error)
