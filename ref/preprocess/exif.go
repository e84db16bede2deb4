package preprocess

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/llavaref/llavaref/shapes"
)

// metadata is what of a file's metadata says how the image is to be turned. Each is nil if the file does not have it.
type metadata struct {
	exif []byte // a TIFF file, "Exif\0\0" in front or not
	xmp  []byte // Adobe's XML
}

// orientation is getexif of Pillow's Image, and of it the tag that exif_transpose looks at: EXIF first, then XMP.
func (d metadata) orientation() (int, error) {
	value, found, err := exifOrientation(d.exif)
	if err != nil {
		return 1, err
	}
	if !found {
		value = xmpOrientation(d.xmp)
	}
	if value < 1 || value > 8 {
		return 1, nil
	}
	return value, nil
}

// exifOrientation reads tag 0x0112 of the first directory. A directory that is cut short counts as far as it goes.
func exifOrientation(data []byte) (value int, found bool, err error) {
	for bytes.HasPrefix(data, []byte("Exif\x00\x00")) {
		data = data[6:]
	}
	if len(data) == 0 {
		return 0, false, nil
	}
	if len(data) < 8 {
		return 0, false, fmt.Errorf("exif: %d bytes, want a TIFF header", len(data))
	}
	var order binary.ByteOrder
	switch string(data[:4]) {
	case "II*\x00":
		order = binary.LittleEndian
	case "MM\x00*":
		order = binary.BigEndian
	default:
		return 0, false, fmt.Errorf("exif: starts with %q, want a TIFF header", data[:4])
	}
	at := uint64(order.Uint32(data[4:]))
	if at+2 > uint64(len(data)) {
		return 0, false, nil
	}
	entries := data[at+2:]
	for range order.Uint16(data[at:]) {
		if len(entries) < 12 {
			break
		}
		if order.Uint16(entries) == 0x0112 {
			v, ok, err := exifNumber(data, entries[:12], order)
			if err != nil {
				return 0, false, err
			}
			if ok {
				value, found = v, true
			}
		}
		entries = entries[12:]
	}
	return value, found, nil
}

// exifNumber is the first value of an entry: tag, type, count, and the values or, if they need more than 4 bytes, where they
// stand. It is missing if the file ends before that. Other types than these two nobody writes, and Pillow ignores some.
func exifNumber(data, entry []byte, order binary.ByteOrder) (value int, found bool, err error) {
	kind, count := order.Uint16(entry[2:]), uint64(order.Uint32(entry[4:]))
	size := map[uint16]uint64{3: 2, 4: 4}[kind]
	if size == 0 {
		return 0, false, fmt.Errorf("exif: orientation of type %d, want 3 (SHORT) or 4 (LONG)", kind)
	}
	values := entry[8:12]
	if count*size > 4 {
		at := uint64(order.Uint32(values))
		if at+count*size > uint64(len(data)) {
			return 0, false, nil
		}
		values = data[at:]
	}
	switch {
	case count == 0:
		return 0, false, nil
	case kind == 3:
		return int(order.Uint16(values)), true, nil
	default:
		return int(order.Uint32(values)), true, nil
	}
}

// xmpOrientation finds tiff:Orientation="6" or <tiff:Orientation>6; 0 if there is none.
func xmpOrientation(xmp []byte) int {
	for {
		_, rest, found := bytes.Cut(xmp, []byte("tiff:Orientation"))
		if !found {
			return 0
		}
		xmp = rest
		digit, isAttribute := bytes.CutPrefix(rest, []byte(`="`))
		if !isAttribute {
			digit, found = bytes.CutPrefix(rest, []byte(">"))
		}
		if (isAttribute || found) && len(digit) > 0 && '0' <= digit[0] && digit[0] <= '9' {
			return int(digit[0] - '0')
		}
	}
}

// rawProfile reads what ImageMagick writes as text under "Raw profile type exif": two lines of heading after an empty one,
// then hexadecimal digits in lines.
func rawProfile(text []byte) ([]byte, error) {
	lines := strings.Split(string(text), "\n")
	if len(lines) < 4 {
		return []byte{}, nil
	}
	digits := strings.Join(strings.Fields(strings.Join(lines[3:], "")), "")
	data, err := hex.DecodeString(digits)
	if err != nil {
		return nil, fmt.Errorf("raw profile: %w", err)
	}
	return data, nil
}

// jpegOrientation reads the APP1 segments in front of the image data.
func jpegOrientation(data []byte) (int, error) {
	var d metadata
	for at := 2; at+4 <= len(data); {
		if data[at] != 0xff {
			at++ // garbage between segments, which decoders skip
			continue
		}
		marker := data[at+1]
		if marker == 0xff || marker == 0 || marker == 1 || 0xd0 <= marker && marker <= 0xd7 { // padding, and markers without a segment
			at++
			continue
		}
		if marker == 0xda || marker == 0xd9 { // the image data, or the end
			break
		}
		end := at + 2 + int(binary.BigEndian.Uint16(data[at+2:]))
		if end < at+4 || end > len(data) {
			break
		}
		segment := data[at+4 : end]
		if marker == 0xe1 {
			if exif, ok := bytes.CutPrefix(segment, []byte("Exif\x00\x00")); ok {
				d.exif = append(d.exif, exif...) // a long one is cut into several
			}
			if xmp, ok := bytes.CutPrefix(segment, []byte("http://ns.adobe.com/xap/1.0/\x00")); ok {
				d.xmp = xmp
			}
		}
		at = end
	}
	return d.orientation()
}

// orient turns an image as exif_transpose of Pillow does: orientation 6 is a camera held so that the top of the scene is
// at the right of the stored image.
func orient(m Image, orientation int) Image {
	if orientation == 1 {
		return m
	}
	size, last := m.Size, shapes.Size{H: m.Size.H - 1, W: m.Size.W - 1}
	if orientation >= 5 {
		size = shapes.Size{H: m.Size.W, W: m.Size.H}
	}
	out := NewImage(size)
	for y := range size.H {
		row := out.Row(y)
		for x := range size.W {
			var fy, fx int // where the pixel comes from
			switch orientation {
			case 2:
				fy, fx = y, last.W-x
			case 3:
				fy, fx = last.H-y, last.W-x
			case 4:
				fy, fx = last.H-y, x
			case 5:
				fy, fx = x, y
			case 6:
				fy, fx = last.H-x, y
			case 7:
				fy, fx = last.H-x, last.W-y
			case 8:
				fy, fx = x, last.W-y
			}
			copy(row[3*x:3*x+3], m.Row(fy)[3*fx:])
		}
	}
	return out
}
