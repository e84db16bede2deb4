package replay_test

import (
	"flag"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/shapes"
)

// Nodes of the scenarios, one or more of each kind.
var (
	nodePatch      = shapes.VisionTower + ".embeddings.patch_embedding"
	nodeEmbeddings = shapes.VisionTower + ".embeddings"
	nodeLayerNorm  = shapes.VisionLayer(0) + ".layer_norm1"
	nodeFC1        = shapes.VisionLayer(0) + ".mlp.fc1"
	nodeFC2        = shapes.VisionLayer(0) + ".mlp.fc2"
	nodeVScores    = shapes.VisionLayer(0) + ".self_attn.scores"
	nodeVProbs     = shapes.VisionLayer(0) + ".self_attn.probs"
	nodeVContext   = shapes.VisionLayer(0) + ".self_attn.context"
	nodeQuickGELU  = shapes.VisionLayer(0) + ".mlp.activation_fn"
	nodeAdd        = shapes.VisionLayer(0) + ".residual_attn"
	nodeGELU       = shapes.Projector + ".act"
	nodeEmbed      = shapes.TextModel + ".embed_tokens"
	nodeRMS        = shapes.TextLayer(0) + ".input_layernorm"
	nodeRope       = shapes.TextLayer(0) + ".self_attn.rope_q"
	nodeScores     = shapes.TextLayer(0) + ".self_attn.scores"
	nodeProbs      = shapes.TextLayer(0) + ".self_attn.probs"
	nodeContext    = shapes.TextLayer(0) + ".self_attn.context"
	nodeSiLU       = shapes.TextLayer(0) + ".mlp.act_fn"
	nodeMul        = shapes.TextLayer(0) + ".mlp.gated"
	nodeDown       = shapes.TextLayer(0) + ".mlp.down_proj"
)

func allNodes() []string {
	return []string{nodePatch, nodeEmbeddings, nodeLayerNorm, nodeFC2, nodeVScores, nodeVProbs, nodeVContext, nodeQuickGELU, nodeAdd, nodeGELU,
		nodeEmbed, nodeRMS, shapes.NodeCos, shapes.NodeSin, nodeRope, nodeScores, nodeProbs, nodeContext, nodeSiLU, nodeMul, nodeDown}
}

// seeds is how many random tensors each scenario is tried with.
var seeds = flag.Int("seeds", 4, "random tensors for each node and class; the styles of activations take turns")

// TestRightKernels lets every right kernel compute every node, in every class, on activations of every style. None may fail.
// With -v it prints how near to its limit each criterion came.
func TestRightKernels(t *testing.T) {
	var mu sync.Mutex
	nearest := map[string]map[compare.Criterion]float64{}
	tensors, kernels := 0, rightKernels()
	type job struct {
		node  string
		class compare.Class
		style string
		seed  uint64
	}
	jobs := make(chan job)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for j := range jobs {
				s := newScenario(t, tinyWidths(), j.node, j.class, j.style, j.seed)
				for _, k := range kernels {
					if k.stored && j.class == compare.F32 {
						continue
					}
					r := judge(t, s, k)
					if !r.Pass {
						t.Errorf("%s, seed %d: %s: %v", s.name, j.seed, k.name, r)
					}
					mu.Lock()
					tensors++
					key := fmt.Sprintf("%-16s %-4s", s.node.Kind, j.class)
					if nearest[key] == nil {
						nearest[key] = map[compare.Criterion]float64{}
					}
					for _, c := range r.Checks {
						nearest[key][c.Criterion] = max(nearest[key][c.Criterion], c.Ratio)
					}
					mu.Unlock()
				}
			}
		})
	}
	for seed := range uint64(*seeds) {
		for i, node := range allNodes() {
			for _, class := range compare.Classes() {
				jobs <- job{node, class, styles()[(int(seed)+i)%len(styles())], seed}
			}
		}
	}
	close(jobs)
	wg.Wait()
	criteria := []compare.Criterion{compare.Bound, compare.Largest, compare.RMS, compare.RowRMS, compare.SliceRMS, compare.Bias, compare.Shrink}
	t.Logf("%d tensors; error over limit, the largest of all:\n%-22s%10v", tensors, "", criteria)
	for _, key := range slices.Sorted(maps.Keys(nearest)) {
		line := key
		for _, c := range criteria {
			line += fmt.Sprintf(" %9.3f", nearest[key][c])
		}
		t.Log(line)
	}
}

// TestSquaresOfFewDigits: embeddings are numbers of bfloat16. One accumulator over their squares loses digits on one side, 400 roundoffs of 4096
// squares or 200 of their root, and is a right kernel all the same; one that is off by 2^-14, 1024 roundoffs, is not.
func TestSquaresOfFewDigits(t *testing.T) {
	w := tinyWidths()
	w.c = 4096
	for seed := range uint64(max(*seeds/4, 1)) {
		s := newScenario(t, w, nodeRMS, compare.F32, normal, seed)
		r := rand.New(rand.NewPCG(seed, 5))
		for i := range s.inputs[0].Data {
			s.inputs[0].Data[i] = float32(r.IntN(257)-128) / 512
		}
		lost := 0.0
		for r := range s.inputs[0].Rows() {
			row, exact := s.inputs[0].Row(r), 0.0
			for _, v := range row {
				exact += float64(v) * float64(v)
			}
			lost = max(lost, (1-float64(laned(1, unfused)(row, row, 0))/exact)*(1<<24))
		}
		t.Logf("one accumulator loses up to %.0f roundoffs of 4096 squares", lost)
		for _, k := range rightKernels()[:10] { // in class f32 there is nothing to store
			if v := judge(t, s, k); !v.Pass {
				t.Errorf("seed %d: %s: %v", seed, k.name, v)
			}
		}
		k := sane()
		k.round = func(c compare.Class, x float32) float32 { return x * (1 - 0x1p-14) }
		if v := judge(t, s, k); v.Pass {
			t.Errorf("seed %d: values too small by 2^-14: %v", seed, v)
		}
	}
}

// TestCalibration measures what the factor on float32 arithmetic rests on: the root mean square error of a sum, in units of the modelled one,
// in which every rounding is worth one roundoff. With -v it prints the table.
func TestCalibration(t *testing.T) {
	const most = 0.75 // half of the factor
	t.Log("| kernel | K = 64 | 1024 | 4096 |")
	for _, k := range rightKernels()[:10] {
		text := fmt.Sprintf("| %s |", k.name)
		for _, terms := range []int{64, 1024, 4096} {
			var least, largest = math.Inf(1), 0.0
			for i, style := range styles() {
				w := tinyWidths()
				long(terms, 2)(&w)
				s := newScenario(t, w, nodeFC2, compare.F32, style, uint64(i))
				b, y := s.budget(t, k.lanes), emulate(s, k)
				var error, model float64
				for i, v := range y.Data {
					d := float64(v) - float64(s.want.Data[i])
					error += d * d
					model += float64(b.AccRMS[i]) * float64(b.AccRMS[i])
				}
				c := math.Sqrt(error / model)
				least, largest = min(least, c), max(largest, c)
				if c > most {
					t.Errorf("%s, %d terms, %s: %.2f times the modelled error, want at most %v", k.name, terms, style, c, most)
				}
			}
			text += fmt.Sprintf(" %.2f to %.2f |", least, largest)
		}
		t.Log(text)
	}
}

// TestShortProducts averages the rounding errors of all products of two significands, in half steps: the bias that shortProducts allows twice over.
func TestShortProducts(t *testing.T) {
	for class, bits := range map[compare.Class]int{compare.F16: 11, compare.BF16: 8} {
		sum, n := 0.0, 0.0
		for a := 1 << (bits - 1); a < 1<<bits; a++ {
			for b := 1 << (bits - 1); b < 1<<bits; b++ {
				p := float64(a * b)
				half := class.HalfStep(p)
				sum += (math.RoundToEven(p/(2*half))*2*half - p) / half
				n++
			}
		}
		mean := sum / n
		t.Logf("%s: %.4f half steps", class, mean)
		if allowed := 8 * class.Roundoff(); mean > 0 || -mean > allowed/2 {
			t.Errorf("%s: mean error %.4f half steps, allowed are %.4f", class, mean, allowed)
		}
	}
}
