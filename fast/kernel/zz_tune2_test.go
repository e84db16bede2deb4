package kernel
import ("testing";"fmt";"slices";"unsafe")
func BenchmarkTile(b *testing.B) {
	m := active
	pool := newPool(1, m); defer pool.Close()
	mem := allocate(b, 64<<20)
	f := floats(mem)
	for i := range f { f[i]=0.01 }
	now := benchNow(b)
	type cfg struct{ rows, kc, tiles, panels int; ystride int; ahead bool }
	cfgs := []cfg{{14,128,1,1,128,false},{14,512,1,1,128,false},{14,512,1,1,4096,false},{14,512,10,4,4096,false},{14,512,10,4,4096,true},{14,512,20,4,4096,true},{14,1024,10,4,4096,true},{12,512,10,4,4096,true},{13,512,10,4,4096,true},{14,512,10,4,4096+128,true}, {8,512,1,1,128,false}}
	res := map[cfg][]float64{}
	lim := []float64{}
	var t tile
	for b.Loop() {
		s:=now(); a:=pool.Reach(FMA, 50000, nil); lim=append(lim, a/(now()-s)/1e9)
		for _,c := range cfgs {
			flop := 0.0
			s:=now()
			for flop < 10e9 {
				A := 0; B := 8<<20; Y := 12<<20
				for p := range c.panels {
					for i := range c.tiles {
						t = tile{steps: c.kc/2, rows: c.rows, panels:1, srcStride: c.ystride, dstStride: c.ystride}
						t.x = unsafe.Pointer(&f[A+i*c.kc*14])
						t.w[0] = unsafe.Pointer(&f[B+p*c.kc*32])
						t.ahead = uintptr(t.w[0])
						if c.ahead && i==0 { t.ahead = uintptr(unsafe.Pointer(&f[B+(p+1)%c.panels*c.kc*32])) }
						t.src[0] = unsafe.Pointer(&f[Y+i*c.ystride/4*c.rows+p*32])
						t.dst[0]=t.src[0]
						m.matmul.tile[F32](&t)
						flop += float64(c.rows*64*c.kc)
					}
				}
			}
			res[c]=append(res[c], flop/(now()-s)/1e9)
		}
	}
	fmt.Println("limit", median(lim))
	for _,v := range cfgs { fmt.Println(v, median(res[v]), "%", 100*median(res[v])/median(lim), "best", slices.Max(res[v])/slices.Max(lim)*100) }
}
