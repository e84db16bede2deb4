package checkpoint

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// torchNames are the dtypes as config.json spells them.
var torchNames = map[DType]string{F32: "float32", F16: "float16", BF16: "bfloat16"}

// ConfigWithDType is a config.json that states another dtype of the weights, F32, F16 or BF16, under whichever of
// torch_dtype and dtype it used.
func ConfigWithDType(config []byte, d DType) ([]byte, error) {
	name, ok := torchNames[d]
	if !ok {
		return nil, fmt.Errorf("checkpoint: dtype %q, want F32, F16 or BF16", d)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(config, &fields); err != nil {
		return nil, fmt.Errorf("checkpoint: config.json: %w", err)
	}
	if fields == nil {
		return nil, fmt.Errorf("checkpoint: config.json: null, want an object")
	}
	key := "torch_dtype"
	if _, has := fields["dtype"]; has {
		key = "dtype"
		delete(fields, "torch_dtype")
	}
	fields[key] = json.RawMessage(strconv.Quote(name))
	out, err := json.MarshalIndent(fields, "", "  ")
	return append(out, '\n'), err
}
