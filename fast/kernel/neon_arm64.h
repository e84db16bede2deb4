// Instructions that Go's assembler does not know, each beside what it is. Arguments are register numbers; lane is 0 to 3.
// TestEncodings decodes every line.

// d and n are Vd.4S and Vn.4S, m is Vm.S[lane]: d += n * m, fused.
#define FMLA_LANE(d, n, m, lane) WORD $(0x4f801000 | (lane)%2<<21 | (m)<<16 | (lane)/2<<11 | (n)<<5 | (d)) // fmla vd.4s, vn.4s, vm.s[lane]

// d = n + m, four float32.
#define FADD_4S(d, n, m) WORD $(0x4e20d400 | (m)<<16 | (n)<<5 | (d)) // fadd vd.4s, vn.4s, vm.4s

// The low and the high four float16 of n, widened.
#define FCVTL_4S(d, n) WORD $(0x0e217800 | (n)<<5 | (d)) // fcvtl vd.4s, vn.4h
#define FCVTL2_4S(d, n) WORD $(0x4e217800 | (n)<<5 | (d)) // fcvtl2 vd.4s, vn.8h

// Arithmetic of four float32: d = n op m.
#define FSUB_4S(d, n, m) WORD $(0x4ea0d400 | (m)<<16 | (n)<<5 | (d)) // fsub vd.4s, vn.4s, vm.4s
#define FMUL_4S(d, n, m) WORD $(0x6e20dc00 | (m)<<16 | (n)<<5 | (d)) // fmul vd.4s, vn.4s, vm.4s
#define FDIV_4S(d, n, m) WORD $(0x6e20fc00 | (m)<<16 | (n)<<5 | (d)) // fdiv vd.4s, vn.4s, vm.4s
#define FMAX_4S(d, n, m) WORD $(0x4e20f400 | (m)<<16 | (n)<<5 | (d)) // fmax vd.4s, vn.4s, vm.4s
#define FMIN_4S(d, n, m) WORD $(0x4ea0f400 | (m)<<16 | (n)<<5 | (d)) // fmin vd.4s, vn.4s, vm.4s

// All bits of a lane of d are whether n > m, or n = m.
#define FCMGT_4S(d, n, m) WORD $(0x6ea0e400 | (m)<<16 | (n)<<5 | (d)) // fcmgt vd.4s, vn.4s, vm.4s
#define FCMEQ_4S(d, n, m) WORD $(0x4e20e400 | (m)<<16 | (n)<<5 | (d)) // fcmeq vd.4s, vn.4s, vm.4s

// Four signed integers, halved downwards; and their signs in all bits.
#define SSHR1_4S(d, n) WORD $(0x4f3f0400 | (n)<<5 | (d)) // sshr vd.4s, vn.4s, #1
#define SSHR31_4S(d, n) WORD $(0x4f210400 | (n)<<5 | (d)) // sshr vd.4s, vn.4s, #31

// The low or the high half of d is n, rounded to float16.
#define FCVTN_4H(d, n) WORD $(0x0e216800 | (n)<<5 | (d)) // fcvtn vd.4h, vn.4s
#define FCVTN2_8H(d, n) WORD $(0x4e216800 | (n)<<5 | (d)) // fcvtn2 vd.8h, vn.4s
