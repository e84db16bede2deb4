package kernel
import ("testing";"os";"strconv";"fmt";"math/rand/v2";"slices")
func init(){ if v,err:=strconv.Atoi(os.Getenv("RBB")); err==nil { rowsBlockBytes=v<<10 } }
// compare: for several settings interleaved
func BenchmarkTune(b *testing.B) {
	m := active
	rows,k,n := 577,4096,1024
	if v,err:=strconv.Atoi(os.Getenv("M")); err==nil { rows=v }
	pool := newPool(benchThreads(), m); defer pool.Close()
	x, y := make([]float32, rows*k), make([]float32, rows*n)
	r := rand.New(rand.NewPCG(1, 1))
	for i := range x { x[i]=r.Float32()-0.5 }
	raw := allocate(b, n*k*4); w := Matrix{Type: F32, N:n,K:k,F32:floats(raw)}
	for i := range w.F32 { w.F32[i] = float32(i%255-127) / 128 }
	pw := pool.Pack(allocate(b, PackedSize(w)), w, Float32)
	now := benchNow(b)
	type cf struct{rb,kc,gp int}
	rbb := []cf{{128,512,4},{300,512,4},{560,512,4},{560,512,8},{560,512,2},{300,1024,4},{560,1024,4},{560,1024,8},{560,768,4}}
	res := map[cf][]float64{}
	lim := []float64{}
	for b.Loop() {
		s:=now(); a:=pool.Reach(FMA, 100000, nil); lim=append(lim, a/(now()-s)/1e9)
		for _,v := range rbb {
			rowsBlockBytes=v.rb<<10; blockFloat32=v.kc; groupPanels=v.gp
			s:=now(); pool.Gemm(y,x,rows,pw,nil); res[v]=append(res[v], float64(2*rows*n*k)/(now()-s)/1e9)
		}
	}
	fmt.Println("limit", median(lim))
	for _,v := range rbb { fmt.Println(v, median(res[v]), "%", 100*median(res[v])/median(lim), "best", slices.Max(res[v])/slices.Max(lim)*100) }
}
