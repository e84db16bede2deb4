package ref

// LlavaNextMultiModalProjector takes image features to the width of the text: linear_2(GELU(linear_1(x))) (S12).
// LLaVA-1.5's LlavaMultiModalProjector is the same.
type LlavaNextMultiModalProjector struct {
	Linear1 Linear // [C, D] and [C]
	Linear2 Linear // [C, C] and [C]
}

// Forward: [N, S-1, D] -> [N, S-1, C].
func (p LlavaNextMultiModalProjector) Forward(x Tensor, name string, see see) Tensor {
	h := see(name+".linear_1", p.Linear1.Forward(x))   // [N, S-1, C]
	h = see(name+".act", GELU(h))                      // [N, S-1, C]
	return see(name+".linear_2", p.Linear2.Forward(h)) // [N, S-1, C]
}
