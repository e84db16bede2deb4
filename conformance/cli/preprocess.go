package cli

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/llavaref/llavaref/golden/npy"
	"github.com/llavaref/llavaref/ref/preprocess"
	"github.com/llavaref/llavaref/ref/preprocess/pattern"
	"github.com/llavaref/llavaref/shapes"
)

// preprocessFlags are the flags of preprocess.
type preprocessFlags struct {
	of                                    imageFlags
	image, out, variant, identify, format string
	force                                 bool
}

func preprocessCommand() *cobra.Command {
	var f preprocessFlags
	cmd := &cobra.Command{
		Use:   "preprocess --image FILE",
		Short: "Make pixel_values of an image, or find out whose an engine's are",
		Long: `Preprocess makes of an image what the vision tower takes, bit for bit as transformers does with a named library, and
says the SHA-256 of each stage. With --out DIR it writes a folder:

  pixel_values.npy   float32 [tiles, 3, height, width]: the whole image, then the canvas row by row
  image_sizes.json   [[height, width]], the size that the image had
  image.png          the image as it was read: give these pixels to other engines
  resized.png        the image in its new size, without padding (LLaVA-1.5: after the crop)
  canvas.png         with its padding; cut into tiles, it is the rest of pixel_values
  whole.png          the first tile
  stages.json        sizes, and the SHA-256 of each stage: of the pixels, and of the values as little-endian float32

The image is a PNG, a BMP, a GIF (its first frame), a WebP without loss, a uint8 array [height, width, 3] as .npy, or
pattern:KIND-WIDTHxHEIGHT, a test image that is made, of one of the kinds
` + strings.Join(pattern.Kinds(), ", ") + `.
A JPEG is read with a warning, because decoders differ. Files are read as transformers reads a path: the EXIF orientation
is applied, alpha is dropped.

--variant chooses whose arithmetic is followed:

  pillow        Pillow up to 12.1.1: columns first, then rows. The model was trained with it
  pillow-12.2   Pillow 12.2 and 12.3: rows first for very tall images
  pillow-13     Pillow 13: rows first where the image loses much height
  torchvision   transformers' "fast" processors: 16-bit weights, rescaling and normalisation in one step

--identify FILE.npy compares an engine's pixel_values with all of these and with the known bugs, and names the one that it
is. Exit code 0 if it is the variant of --variant, 4 if it is another published rule: another variant, alpha put on white
as transformers 5.21 does with image objects, the original LLaVA's canvas or square, the padding of transformers up to
4.51. Exit code 1 if it is a bug or unknown. float16 values are compared after rounding to float16.`,
		Example: `  llavaref preprocess --image pattern:photo-640x480 --out photo
  llavaref preprocess --image photo/image.png --identify photo/pixel_values.npy
  llavaref preprocess --image photo/image.png --model llava-1.5-7b --variant torchvision --format json`,
		Args: noArgs,
	}
	f.of.add(cmd)
	fs := cmd.Flags()
	fs.StringVar(&f.image, "image", "", "an image file, a .npy array or pattern:KIND-WIDTHxHEIGHT")
	fs.StringVar(&f.out, "out", "", "the folder to write, made if it is not there")
	fs.StringVar(&f.variant, "variant", string(preprocess.Pillow), "whose arithmetic: "+variantNames())
	fs.StringVar(&f.identify, "identify", "", "an engine's pixel_values as .npy, to be recognised")
	fs.StringVar(&f.format, "format", "text", "text or json")
	fs.BoolVar(&f.force, "force", false, "write into a folder that is not empty")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return f.run(cmd) }
	return cmd
}

func (f *preprocessFlags) run(cmd *cobra.Command) error {
	if err := oneOf("format", f.format, "text", "json"); err != nil {
		return err
	}
	if f.image == "" {
		return usage("--image is missing, want an image file, a .npy array or pattern:KIND-WIDTHxHEIGHT")
	}
	if f.out != "" && f.identify != "" {
		return usage("want one of --out and --identify")
	}
	variant, err := preprocess.ParseVariant(f.variant)
	if err != nil {
		return usage("--variant: %w", err)
	}
	name, p, err := f.of.processor()
	if err != nil {
		return err
	}
	picture, err := readPicture(f.image)
	if err != nil {
		return err
	}
	if picture.Warning != "" {
		fmt.Fprintf(cmd.ErrOrStderr(), "llavaref: warning: %s: %s\n", f.image, picture.Warning)
	}
	if f.identify != "" {
		p.Variant = variant
		return f.recognise(cmd, p, picture.Image)
	}
	p.Variant = variant
	s, err := p.Steps(picture.Image)
	if err != nil {
		return err
	}
	d := stagesJSON(name, f.image, variant, picture, p, s)
	if f.out != "" {
		if err := mayWrite(f.out, f.force); err != nil {
			return err
		}
		if err := writeStages(cmd, f.out, picture.Image, s, d); err != nil {
			return err
		}
	}
	if f.format == "json" {
		return writeJSON(cmd.OutOrStdout(), d)
	}
	stagesText(cmd.OutOrStdout(), d)
	return nil
}

// readPicture reads an image from wherever --image says.
func readPicture(name string) (preprocess.Picture, error) {
	if kind, isPattern := strings.CutPrefix(name, "pattern:"); isPattern {
		size, pix, err := pattern.Make(kind)
		if err != nil {
			return preprocess.Picture{}, usage("--image: %w", err)
		}
		return preprocess.Picture{Image: preprocess.Image{Size: size, Pix: pix}, Format: "pattern", Orientation: 1}, nil
	}
	if strings.HasSuffix(name, ".npy") {
		m, err := readArray(name)
		return preprocess.Picture{Image: m, Format: "npy", Orientation: 1}, err
	}
	return preprocess.ReadImage(name)
}

// readArray reads uint8 [height, width, 3].
func readArray(name string) (preprocess.Image, error) {
	const most = 178_956_970 // pixels, as of any image
	h, err := npy.Stat(name)
	if err != nil {
		return preprocess.Image{}, err
	}
	if h.DType != "|u1" || len(h.Shape) != 3 || h.Shape[2] != 3 || h.Len() == 0 || h.Len() > 3*most {
		return preprocess.Image{}, fmt.Errorf("%s: dtype %s, shape %v, want |u1 [height, width, 3] of at most %d pixels", name, h.DType, h.Shape, most)
	}
	a, err := npy.ReadFile(name)
	if err != nil {
		return preprocess.Image{}, err
	}
	values, err := a.Int64s()
	if err != nil {
		return preprocess.Image{}, err
	}
	m := preprocess.NewImage(shapes.Size{H: h.Shape[0], W: h.Shape[1]})
	for i := range m.Pix {
		m.Pix[i] = uint8(values[i])
	}
	return m, nil
}

type stagesDoc struct {
	planDoc
	Variant     string    `json:"variant"`
	File        string    `json:"file"`
	Format      string    `json:"format"`
	Orientation int       `json:"orientation"` // EXIF's, which was applied; 1 is none
	Stages      stageDocs `json:"stages"`
}

type stageDocs struct {
	Image       stageDoc `json:"image"`
	Resized     stageDoc `json:"resized"`
	Canvas      stageDoc `json:"canvas"`
	Whole       stageDoc `json:"whole"`
	PixelValues stageDoc `json:"pixel_values"`
}

type stageDoc struct {
	Shape  []int  `json:"shape"`
	SHA256 string `json:"sha256"`
}

func stagesJSON(model, file string, v preprocess.Variant, picture preprocess.Picture, p preprocess.Processor, s preprocess.Steps) stagesDoc {
	return stagesDoc{
		planDoc:     planJSON(model, p, s.Plan),
		Variant:     string(v),
		File:        file,
		Format:      picture.Format,
		Orientation: picture.Orientation,
		Stages: stageDocs{
			Image:       pixelStage(picture.Image),
			Resized:     pixelStage(s.Scaled),
			Canvas:      pixelStage(s.Padded),
			Whole:       pixelStage(s.Pieces[0]),
			PixelValues: valueStage(s.PixelValues),
		},
	}
}

func pixelStage(m preprocess.Image) stageDoc {
	return stageDoc{[]int{m.Size.H, m.Size.W, 3}, fmt.Sprintf("%x", sha256.Sum256(m.Pix))}
}

func valueStage(t shapes.Tensor) stageDoc {
	sum := sha256.New()
	var buf []byte
	for piece := range slices.Chunk(t.Data, 1<<14) {
		buf = buf[:0]
		for _, v := range piece {
			buf = binary.LittleEndian.AppendUint32(buf, math.Float32bits(v))
		}
		sum.Write(buf) // a hash takes everything
	}
	return stageDoc{t.Shape, fmt.Sprintf("%x", sum.Sum(nil))}
}

func stagesText(w io.Writer, d stagesDoc) {
	fmt.Fprintf(w, "%s, %s as %s, %s: %d tokens\n", d.File, d.Format, d.Model, d.Variant, d.Tokens)
	for _, row := range []struct {
		name  string
		stage stageDoc
	}{{"image", d.Stages.Image}, {"resized", d.Stages.Resized}, {"canvas", d.Stages.Canvas}, {"whole", d.Stages.Whole}, {"pixel_values", d.Stages.PixelValues}} {
		fmt.Fprintf(w, "%-13s %-19s %s\n", row.name, shapeText(row.stage.Shape), row.stage.SHA256)
	}
}

// writeStages writes the folder of --out, each file as a whole or not at all.
func writeStages(cmd *cobra.Command, dir string, m preprocess.Image, s preprocess.Steps, d stagesDoc) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	for name, stage := range map[string]preprocess.Image{"image.png": m, "resized.png": s.Scaled, "canvas.png": s.Padded, "whole.png": s.Pieces[0]} {
		if err := writeOut(cmd, filepath.Join(dir, name), func(w io.Writer) error { return writePNG(w, stage) }); err != nil {
			return err
		}
	}
	if err := npy.WriteFile(filepath.Join(dir, "pixel_values.npy"), s.PixelValues.Shape, s.PixelValues.Data); err != nil {
		return err
	}
	sizes, err := json.Marshal([][2]int{{m.Size.H, m.Size.W}})
	if err != nil {
		return err
	}
	if err := writeOut(cmd, filepath.Join(dir, "image_sizes.json"), func(w io.Writer) error {
		_, err := w.Write(append(sizes, '\n'))
		return err
	}); err != nil {
		return err
	}
	return writeOut(cmd, filepath.Join(dir, "stages.json"), func(w io.Writer) error { return writeJSON(w, d) })
}

func writePNG(w io.Writer, m preprocess.Image) error {
	out := image.NewNRGBA(image.Rect(0, 0, m.Size.W, m.Size.H))
	for i := range m.Size.Area() {
		copy(out.Pix[4*i:], m.Pix[3*i:3*i+3])
		out.Pix[4*i+3] = 255
	}
	return png.Encode(w, out)
}
