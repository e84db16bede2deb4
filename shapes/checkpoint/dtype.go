package checkpoint

// DType is the type of a tensor's values, as the safetensors header spells it.
type DType string

// The dtypes whose values can be read and written. Each is a subset of float32.
const (
	F32  DType = "F32"
	F16  DType = "F16"  // IEEE binary16
	BF16 DType = "BF16" // the upper half of a float32
)

// dtypeBits are all dtypes of the format with the bits of one value (safetensors 0.8). A header may hold any of them.
var dtypeBits = map[DType]int{
	"BOOL": 8, "U8": 8, "I8": 8, "I16": 16, "U16": 16, "I32": 32, "U32": 32, "I64": 64, "U64": 64,
	"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
	"F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
	F16: 16, BF16: 16, F32: 32, "F64": 64, "C64": 64,
}

// Bits is the width of one value; 0 for a dtype that the format does not have. F4 and the two F6 are packed.
func (d DType) Bits() int { return dtypeBits[d] }

// Readable says whether values of this dtype can be read as float32. F64 is not: it would have to be rounded.
func (d DType) Readable() bool { return d == F32 || d == F16 || d == BF16 }
