// Package kernel holds the inner loops of the fast engine: functions over flat slices that know nothing of models.
//
// # Implementations
//
// Every operation exists once in plain Go (the generic implementation) and again in assembly for the instruction sets
// that are worth it. [Implementations] lists what this build has and what of it this processor runs, [Active] names
// what is used. The environment variable LLAVAREF_DISABLE, a list such as "avx512bf16,avx2", switches implementations
// off; it is read once, when the program starts. The build tag purego leaves the assembly out altogether.
//
// # Matrix products
//
// A product is y = x Wᵀ + b, with x [M, K], W [N, K] and y [M, N], all row-major. [Pool.Pack] lays W out for the
// inner loops, once; [Direct] leaves it where it is, and every product pays for the layout again. [Pool.Gemm] then
// multiplies. There are two classes of arithmetic:
//
//   - [Float32]: the weights are widened exactly, products are added with fused multiply-adds in float32.
//   - [BFloat16]: x is rounded to bfloat16 first, at this product's input and nowhere else; the products of two
//     bfloat16 are added in float32. It exists for bfloat16 weights only. A float16 has more mantissa than
//     VDPBF16PS takes, and weights that must be rounded for the product are another model.
//
// Sums run in a fixed order: K is cut into equal blocks of at most 1024 values ([BFloat16]: 2048) by K alone, the sum of
// a block runs over k in order, in one accumulator that starts at zero, and y = ((b + block 0) + block 1) + ...
// Therefore, in the float32 class, the bits of a row of y depend on that row, on W and on b, and on nothing else:
// not on M, on the number of workers, on packing, or on the implementation. (Two exceptions: the payload of a NaN, and the sign of a zero
// that only denormal products reach.) In the BFloat16 class the same holds within one implementation; avx512bf16 differs from the others, which all
// give the same bits. VDPBF16PS adds two products at a time, takes denormal bfloat16 for zero, and flushes denormal
// results: beside the rounding error of the sum it may be off by K 2^-126 (max|x| + max|w| + 1).
//
// # Everything else
//
// Norms, activations, the rotation of heads, attention and conversions are float32 in both classes, and give the same bits on all
// implementations, for any number of threads, and for any number of rows at a time. Each step is a float32 operation rounded once, a fused
// multiply-add where vector_generic.go has one; e^x and erf are polynomials, right to 1 and 2 units in the last place over all of
// float32 (TestElementary); a sum over a row has 32 parts in a fixed order (lanes). The assembly takes whole vectors, and plain Go what is left over.
//
// [KV] keeps keys and values as panels, so that [Pool.Attend] is made of the same loops as a product: scores of some rows, their softmax, and
// the product with the values, a tile at a time.
package kernel
