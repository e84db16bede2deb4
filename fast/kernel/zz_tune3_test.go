package kernel
import ("testing";"fmt";"unsafe")
func BenchmarkPackX(b *testing.B) {
	m := active
	mem := allocate(b, 64<<20)
	f := floats(mem)
	x := make([]float32, 577*4096)
	now := benchNow(b)
	var c packing
	for b.Loop() {
		for rep := range 3 {
		s:=now()
		for range 20 {
		for t:=0;t<41;t++ { for kb:=0;kb<8;kb++ { m.matmul.packTile(&c, unsafe.Pointer(&f[kb*577*512+t*14*512]), x, 4096, t*14, 14, kb*512, 512, Float32) } }
		}
		if rep==2 { fmt.Println((now()-s)/20*1e3, "ms", (now()-s)/20*3.6e9/577/4096, "cycles/el") }
		}
	}
}
