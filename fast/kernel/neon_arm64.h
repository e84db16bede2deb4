// Instructions that Go's assembler does not know, each beside what it is. Arguments are register numbers; lane is 0 to 3.
// TestEncodings decodes every line.

// d and n are Vd.4S and Vn.4S, m is Vm.S[lane]: d += n * m, fused.
#define FMLA_LANE(d, n, m, lane) WORD $(0x4f801000 | (lane)%2<<21 | (m)<<16 | (lane)/2<<11 | (n)<<5 | (d)) // fmla vd.4s, vn.4s, vm.s[lane]

// d = n + m, four float32.
#define FADD_4S(d, n, m) WORD $(0x4e20d400 | (m)<<16 | (n)<<5 | (d)) // fadd vd.4s, vn.4s, vm.4s

// The low and the high four float16 of n, widened.
#define FCVTL_4S(d, n) WORD $(0x0e217800 | (n)<<5 | (d)) // fcvtl vd.4s, vn.4h
#define FCVTL2_4S(d, n) WORD $(0x4e217800 | (n)<<5 | (d)) // fcvtl2 vd.4s, vn.8h
